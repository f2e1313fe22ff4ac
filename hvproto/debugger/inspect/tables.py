"""Descriptor tables and the task state segment, decoded."""

from __future__ import annotations

import struct

from hvproto.debugger.debuggee import View
from hvproto.debugger.inspect.registers import parse_world
from hvproto.debugger.inspect.table import columns
from hvproto.errors import EXCEPTION_NAMES, World
from hvproto.processor.cpu import Cpu
from hvproto.processor.segments import CODE, LONG, S_BIT, decode_descriptor

_SYSTEM_TYPES = {
    1: "TSS16, available", 2: "LDT", 3: "TSS16, busy", 4: "call gate 16", 5: "task gate", 6: "interrupt gate 16",
    7: "trap gate 16", 9: "TSS", 11: "TSS, busy", 12: "call gate", 14: "interrupt gate", 15: "trap gate",
}  # fmt: skip


def _cpu(view: View, whose: str) -> Cpu:
    """The processor as that world sees it: the guest's own virtual one, if it has one."""
    guest = view.subject.mirrored
    if whose and parse_world(whose) is World.GUEST and guest is not None:
        return guest.cpu
    return view.subject.processor


def idt(view: View, whose: str = "") -> str:
    """The gates of the table in IDTR; with `guest`, of the table that a deprivileged guest has loaded."""
    cpu = _cpu(view, whose)
    wide = cpu.long_mode
    size, table = 16 if wide else 8, cpu.idtr
    rows: list[tuple[str, ...]] = []
    skipped = 0
    for vector in range(min(256, (table.limit + 1) // size)):
        raw = cpu.peek(cpu.wrapped(table.base + vector * size), size)
        if raw is None:
            rows.append((f"{vector:#04x}", "not mapped"))
            continue
        low, selector, _, attributes, middle = struct.unpack_from("<HHBBH", raw)
        offset = middle << 16 | low | (int.from_bytes(raw[8:12], "little") << 32 if wide else 0)
        if not attributes & 0x80:
            skipped += 1
            continue
        kind = _SYSTEM_TYPES.get(attributes & 0xF, f"type {attributes & 0xF:#x}")
        symbol = view.subject.symbol_at(offset, World.GUEST if whose else _owner(view, offset))
        name = EXCEPTION_NAMES.get(vector, "")
        rows.append(
            (f"{vector:#04x}", name, kind, f"DPL {attributes >> 5 & 3}", f"{selector:04x}:{offset:08x}", symbol)
        )
    text = columns(rows, head=("vector", "", "gate", "", "to", ""))
    return f"IDT at {table.base:#x}, limit {table.limit:#x}\n{text}\n{skipped} gates are not present"


def _owner(view: View, offset: int) -> World:
    guest = view.subject.mirrored
    if guest is not None and guest.space.region.contains(offset):
        return World.HYPERVISOR
    return view.subject.machine.world


def gdt(view: View, whose: str = "") -> str:
    """The descriptors of the table in GDTR; with `guest`, of the guest's own."""
    cpu = _cpu(view, whose)
    table = cpu.gdtr
    rows: list[tuple[str, ...]] = []
    empty = index = 0
    while index < (table.limit + 1) // 8:
        raw = cpu.peek(cpu.wrapped(table.base + index * 8), 8)
        selector = index * 8
        index += 1
        if raw is None:
            rows.append((f"{selector:04x}", "not mapped"))
            continue
        value = int.from_bytes(raw, "little")
        if not value:
            empty += 1
            continue
        found = decode_descriptor(selector, value)
        base = found.base
        if found.attributes & S_BIT:
            kind = "code" if found.attributes & CODE else "data"
            width = "64" if found.attributes & LONG else "32" if found.is_32bit else "16"
            kind = f"{kind} {width}"
        else:
            kind = _SYSTEM_TYPES.get(found.attributes >> 8 & 0xF, f"type {found.attributes >> 8 & 0xF:#x}")
            if cpu.long_mode:
                upper = cpu.peek(cpu.wrapped(table.base + index * 8), 8) or bytes(8)
                base |= int.from_bytes(upper[:4], "little") << 32
                index += 1
        present = "" if found.present else "not present"
        rows.append((f"{selector:04x}", kind, f"DPL {found.dpl}", f"{base:08x}:{found.limit:08x}", present))
    text = columns(rows, head=("selector", "kind", "", "base:limit", ""))
    return f"GDT at {table.base:#x}, limit {table.limit:#x}\n{text}\n{empty} descriptors are empty"


def tss(view: View, whose: str = "") -> str:
    """The stacks that the task state segment in TR names."""
    cpu = _cpu(view, whose)
    task = cpu.tr
    raw = cpu.peek(cpu.wrapped(task.base), 0x68)
    head = f"TSS {task.selector:04x} at {task.base:#x}, limit {task.limit:#x}"
    if raw is None:
        return f"{head}: not mapped"
    if cpu.long_mode:
        rows = [(f"RSP{n}", f"{int.from_bytes(raw[4 + 8 * n : 12 + 8 * n], 'little'):016x}") for n in range(3)]
        rows += [(f"IST{n}", f"{int.from_bytes(raw[28 + 8 * n : 36 + 8 * n], 'little'):016x}") for n in range(1, 8)]
    else:
        words = struct.unpack("<26I", raw)
        rows = [(f"ESP{n}", f"{words[2 + 2 * n] & 0xFFFF:04x}:{words[1 + 2 * n]:08x}") for n in range(3)]
        rows += [("CR3", f"{words[7]:08x}"), ("EIP", f"{words[8]:08x}"), ("EFLAGS", f"{words[9]:08x}")]
    rows.append(("I/O map", f"{int.from_bytes(raw[0x66:0x68], 'little'):04x}"))
    return f"{head}\n{columns(rows)}"
