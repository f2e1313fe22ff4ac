"""Instructions that raise exceptions by themselves, and those that a ring may not execute."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tools.oracle import layout as at
from tools.oracle.case import Case, at_end
from tools.oracle.case import at as put
from tools.oracle.descriptors import DATA_RW, LDT_TYPE, segment
from tools.oracle.families.kinds import ALL

_PRIVILEGED = {
    "clts": "clts", "invd": "invd", "wbinvd": "wbinvd", "invlpg": "invlpg [0x800000]", "lgdt": f"lgdt [{at.DATA:#x}]",
    "lidt": f"lidt [{at.DATA + 0x10:#x}]", "lldt": f"mov eax, {at.LDT_SELECTOR}\nlldt ax",
    "ltr": f"mov eax, {at.TSS_OTHER_SELECTOR}\nltr ax", "lmsw": "mov eax, 1\nlmsw ax", "smsw": "xor eax, eax\nsmsw ax",
    "read-cr0": "mov eax, cr0", "read-cr2": "mov eax, cr2", "read-cr3": "mov eax, cr3", "read-cr4": "mov eax, cr4",
    "write-cr0": f"mov eax, {at.BASE_CR0 | at.CR0_TS:#x}\nmov cr0, eax", "write-cr2": "mov cr2, eax",
    "write-cr3": f"mov eax, {at.PD:#x}\nmov cr3, eax", "read-cr1": ".byte 0x0f, 0x20, 0xc8",
    "write-cr1": ".byte 0x0f, 0x22, 0xc8", "read-cr5": ".byte 0x0f, 0x20, 0xe8", "read-cr7": ".byte 0x0f, 0x20, 0xf8",
    "write-cr6": ".byte 0x0f, 0x22, 0xf0", "str": "xor eax, eax\nstr ax", "sldt": "xor eax, eax\nsldt ax",
    "sgdt": f"sgdt [{at.DATA + 0x20:#x}]\nmov eax, [{at.DATA + 0x22:#x}]",
    "sidt": f"sidt [{at.DATA + 0x20:#x}]\nmov eax, [{at.DATA + 0x22:#x}]", "sysexit": "sysexit",
    "rdpmc-bad": "mov ecx, 0x12345\nrdpmc", "rdmsr-bad": "mov ecx, 0x12345\nrdmsr",
    "wrmsr-bad": "mov ecx, 0x12345\nwrmsr", "rsm": "rsm", "rdmsr-efer": "mov ecx, 0xc0000080\nrdmsr\nxor eax, eax",
    "clac": ".byte 0x0f, 0x01, 0xca", "vmcall": ".byte 0x0f, 0x01, 0xc1", "sysenter": "sysenter", "sysret": "sysret",
    "syscall": "syscall", "swapgs": ".byte 0x0f, 0x01, 0xf8", "lmsw-clear": "xor eax, eax\nlmsw ax\nsmsw ecx",
}  # fmt: skip

_BAD_CONTROL = {
    "cr0-pg-without-pe": "mov eax, 0x80000010\nmov cr0, eax", "cr0-nw-without-cd": "mov eax, 0xa0000031\nmov cr0, eax",
    "cr4-reserved": "mov eax, 0x80000000\nmov cr4, eax", "cr4-bit15": "mov eax, 0x8000\nmov cr4, eax",
    "cr4-mce": "mov eax, 0x40\nmov cr4, eax\nmov ecx, cr4",
    "cr0-et": "mov eax, 0x80000021\nmov cr0, eax\nmov ecx, cr0",
    "cr3-low-bits": f"mov eax, {at.PD | 0xFFF:#x}\nmov cr3, eax\nmov ecx, cr3",
    "cr0-no-paging": "mov eax, 0x31\nmov cr0, eax\nmov ecx, cr0\nmov edx, [0x600000]",
}  # fmt: skip

_QEMU = frozenset({"qemu"})
_LOSING = ("cr0-pg-without-pe", "cr4-reserved", "cr4-bit15")

_DIVISIONS = {
    "div8-zero": "xor ecx, ecx\ndiv cl", "div16-zero": "xor ecx, ecx\ndiv cx", "div32-zero": "xor ecx, ecx\ndiv ecx",
    "idiv8-zero": "xor ecx, ecx\nidiv cl", "idiv32-zero": "xor ecx, ecx\nidiv ecx", "aam-zero": "aam 0",
    "div8-large": "mov eax, 0x200\nmov ecx, 2\ndiv cl", "div16-large": "mov edx, 2\nmov ecx, 2\ndiv cx",
    "div32-large": "mov edx, 2\nmov ecx, 2\ndiv ecx", "idiv8-least": "mov eax, 0xff80\nmov ecx, 0xff\nidiv cl",
    "idiv16-least": "mov edx, 0xffff\nmov eax, 0x8000\nmov ecx, -1\nidiv cx",
    "idiv32-least": "mov edx, -1\nmov eax, 0x80000000\nmov ecx, -1\nidiv ecx",
    "idiv8-large": "mov eax, 0x100\nmov ecx, 2\nidiv cl", "memory-zero": f"div dword ptr [{at.DATA:#x}]",
    "memory-absent": "div dword ptr [0xfffff000]",
}  # fmt: skip

_INVALID = {
    "ud2": "ud2", "ud1": ".byte 0x0f, 0xb9, 0xc0", "ud0": ".byte 0x0f, 0xff, 0xc0", "lock-nop": ".byte 0xf0, 0x90",
    "lock-register": ".byte 0xf0, 0x01, 0xc0", "lock-load": ".byte 0xf0, 0x8b, 0x05\n.long 0x404000",
    "mov-cs": ".byte 0x8e, 0xc8", "mov-segment-6": ".byte 0x8e, 0xf0", "mov-from-segment-7": ".byte 0x8c, 0xf8",
    "lea-register": ".byte 0x8d, 0xc0", "les-register": ".byte 0xc4, 0xc0, 0x00", "bound-register": ".byte 0x62, 0xc0",
    "group-fe-7": ".byte 0xfe, 0xf8", "group-ff-7": ".byte 0xff, 0xff", "call-far-register": ".byte 0xff, 0xd8",
    "too-long": ".rept 15\n.byte 0x3e\n.endr\nnop", "long-enough": ".rept 14\n.byte 0x3e\n.endr\nnop",
    "cmpxchg8b-register": ".byte 0x0f, 0xc7, 0xc8", "pop-group-1": ".byte 0x8f, 0xc8", "0f04": ".byte 0x0f, 0x04",
    "0f0a": ".byte 0x0f, 0x0a", "0f24": ".byte 0x0f, 0x24, 0xc0", "d6": "salc",
    "lock-int": f".byte 0xf0, 0xcd, {at.END}", "0fa6": ".byte 0x0f, 0xa6, 0xc0", "c6-1": ".byte 0xc6, 0xc8, 0",
    "sgdt-register": ".byte 0x0f, 0x01, 0xc0", "0fb8": ".byte 0x0f, 0xb8, 0xc0",
    "too-long-read": ".rept 14\n.byte 0x3e\n.endr\nmov eax, [0x404000]",
    "lock-lock": ".byte 0xf0, 0xf0, 0xff, 0x05\n.long 0x404000",
}  # fmt: skip

_BOUNDS = {"inside": (0, 5), "at-lower": (3, 9), "at-upper": (0, 3), "below": (4, 9), "above": (-5, 2), "empty": (5, 1)}


def cases() -> Iterator[Case]:
    pointer = put(at.DATA, (at.GDT_LIMIT | at.GDT << 16 & 0xFFFFFFFF, at.GDT >> 16))
    pointer += put(at.DATA + 0x10, (0x7FF | at.IDT << 16 & 0xFFFFFFFF, at.IDT >> 16))
    for (name, code), ring in product(_PRIVILEGED.items(), (0, 1, 3)):
        if (name in ("sysexit", "vmcall") and ring == 0) or (name == "swapgs" and ring != 3):
            continue
        yield Case(f"privileged/{name}/ring{ring}", at_end(code), ring, 2, pointer)
    for ring in (1, 2, 3):
        yield Case(f"privileged/hlt/ring{ring}", at_end("hlt"), ring)
    for (name, code), ring in product(_BAD_CONTROL.items(), (0, 3)):
        lost_on = _QEMU if name in _LOSING and ring == 0 else frozenset()
        yield Case(f"control/{name}/ring{ring}", at_end(code), ring, lost_on=lost_on)
    for (name, code), ring in product(_DIVISIONS.items(), (0, 3)):
        yield Case(f"divide/{name}/ring{ring}", at_end(code), ring, 2 | (ring and 0x202))
    for (name, code), ring in product(_INVALID.items(), (0, 3)):
        yield Case(f"invalid/{name}/ring{ring}", at_end(code), ring)
    for (name, (lower, upper)), ring in product(_BOUNDS.items(), (0, 3)):
        patches = put(at.DATA, (lower, upper))
        yield Case(f"bound/{name}/ring{ring}", at_end(f"mov eax, 3\nbound eax, [{at.DATA:#x}]"), ring, 2, patches)
        words = put(at.DATA, (lower & 0xFFFF | (upper & 0xFFFF) << 16,))
        yield Case(f"bound/{name}-16/ring{ring}", at_end(f"mov eax, 3\nbound ax, [{at.DATA:#x}]"), ring, 2, words)
    for code, ring, flags in product(("into", "int3", "int 3", "int 4", "int1", "int 1"), (0, 1, 3), (2, 0x802)):
        yield Case(f"software/{code.replace(' ', '-')}/{flags:x}/ring{ring}", at_end(code), ring, flags)
    for vector, ring in product((0, 1, 2, 5, 6, 8, 13, 14, 0x20, 0x80, 0xFF), (0, 3)):
        if (vector, ring) != (8, 0):
            yield Case(f"software/int-{vector:x}/ring{ring}", at_end(f"int {vector:#x}"), ring)
    yield from floating_point()
    yield from alignment()
    yield from task_registers()
    yield from timestamp()


def floating_point() -> Iterator[Case]:
    """#NM by TS, EM and MP; #MF and SIMD."""
    switches = {
        "none": 0,
        "ts": at.CR0_TS,
        "em": at.CR0_EM,
        "mp": at.CR0_MP,
        "ts-mp": at.CR0_TS | at.CR0_MP,
        "all": 14,
        "em-ts": 12,
        "em-mp": 6,
    }
    codes = {
        "fninit": "fninit",
        "fwait": "fwait",
        "fnop": "fnop",
        "fld": f"fld dword ptr [{at.DATA:#x}]",
        "emms": "emms",
        "movq": "movq mm0, mm1",
        "fnstsw": "fnstsw ax",
        "fxsave": f"fxsave [{at.DATA:#x}]",
        "movaps": "movaps xmm0, xmm1",
        "prefetch": f"prefetcht0 [{at.DATA:#x}]",
        "absent": "fld dword ptr [0xfffff000]",
    }
    for (what, code), (name, bits), ring in product(codes.items(), switches.items(), (0, 3)):
        settings = {"cr0": at.BASE_CR0 | bits}
        prefix = "" if name != "none" else "fninit\n"
        suffix = "\nxor eax, eax" if what == "fnstsw" else ""
        yield Case(f"float/{what}/{name}/ring{ring}", at_end(prefix + code + suffix), ring, settings=settings)
        if what in ("movaps", "fxsave"):
            yield Case(f"float/{what}-osfxsr/{name}/ring{ring}", at_end(code), ring, settings=settings | {"cr4": 0x200})
    unmasked = f"fninit\nmov word ptr [{at.DATA:#x}], 0x370\nfldcw [{at.DATA:#x}]\nfld1\nfldz\nfdivp st(1), st(0)\n"
    for ring, (name, code) in product(
        (0, 3),
        {
            "fwait": "fwait",
            "fld": "fld1",
            "fninit": "fninit",
            "fnclex": "fnclex\nfwait",
            "fnstsw": "fnstsw ax\nand eax, 0xff",
        }.items(),
    ):
        yield Case(f"float/pending-{name}/ring{ring}", at_end(unmasked + code), ring)
    misaligned = {
        "movaps": f"movaps xmm0, [{at.DATA + 8:#x}]",
        "fxsave": f"fxsave [{at.DATA + 8:#x}]",
        "movaps-store": f"movaps [{at.DATA + 4:#x}], xmm0",
    }
    for (name, code), ring in product(misaligned.items(), (0, 3)):
        yield Case(f"float/misaligned-{name}/ring{ring}", at_end(code), ring, settings={"cr4": 0x200})


def alignment() -> Iterator[Case]:
    """#AC: only with AM, AC and at ring 3."""
    codes = {
        "word": "mov ax, [0x404001]", "dword": "mov eax, [0x404002]", "dword-1": "mov eax, [0x404001]",
        "byte": "mov al, [0x404001]", "write": "mov [0x404002], eax", "update": "add dword ptr [0x404001], 1",
        "push": "sub esp, 2\npush eax", "aligned": "mov eax, [0x404004]", "qword": "fld qword ptr [0x404004]",
        "absent": "mov eax, [0xfffff002]", "movs": "mov esi, 0x404001\nmov edi, 0x404010\nmovsd",
        "crossing": "mov eax, [0x404ffe]", "les": "les eax, [0x404002]", "bound": "bound eax, [0x404001]",
        "xchg": "xchg [0x404003], ax",
    }  # fmt: skip
    for (name, code), (am, ac, ring) in product(codes.items(), ((1, 1, 3), (1, 1, 0), (1, 0, 3), (0, 1, 3), (1, 1, 1))):
        settings = {"cr0": at.BASE_CR0 | am * at.CR0_AM}
        prefix = "fninit\n" if name == "qword" else ""
        yield Case(
            f"align/{name}/am{am}-ac{ac}/ring{ring}", at_end(prefix + code), ring, 2 | ac << 18, settings=settings
        )


def task_registers() -> Iterator[Case]:
    """LTR and LLDT with every sort of bad selector."""
    for kind, word in product(ALL, ("ltr", "lldt")):
        code = at_end(f"mov eax, {kind.selector:#x}\n{word} ax\nxor ecx, ecx\nstr cx\nxor edx, edx\nsldt dx")
        yield Case(f"load/{word}/{kind.name}", code, 0, 2, kind.patches, kind.watches, kind.settings)
    short = segment(LDT_TYPE, base=at.LDT, limit=3, flags=0)
    patches = put(at.GDT + at.T0, short) + put(at.LDT, segment(DATA_RW))
    yield Case("load/lldt/short", at_end(f"mov eax, {at.T0}\nlldt ax\nmov eax, 4\nmov ds, ax"), 0, 2, patches)


def timestamp() -> Iterator[Case]:
    for ring, cr4 in product((0, 3), (0, at.CR4_TSD)):
        yield Case(
            f"privileged/rdtsc-{cr4}/ring{ring}",
            at_end("rdtsc\nxor eax, eax\nxor edx, edx"),
            ring,
            settings={"cr4": cr4},
        )
    for ring, cr4 in product((0, 3), (0, 0x100)):
        yield Case(
            f"privileged/rdpmc-{cr4}/ring{ring}",
            at_end("xor ecx, ecx\nrdpmc\nxor eax, eax\nxor edx, edx"),
            ring,
            settings={"cr4": cr4},
        )
