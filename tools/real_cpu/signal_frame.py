"""Where Linux keeps the interrupted processor's state in a signal frame on x86-64, and how to install a handler.

Offsets of ``ucontext_t.uc_mcontext.gregs`` and the indices in it are those of glibc's <sys/ucontext.h>; ``REG_ERR``,
``REG_TRAPNO`` and ``REG_CR2`` are the error code, the vector and CR2 of the last exception (``struct sigcontext``,
arch/x86/include/uapi/asm/sigcontext.h).
"""

from __future__ import annotations

import ctypes
import signal
import struct

GREGS = 40
"""The offset of the registers in ucontext_t."""
GREG_COUNT = 23
GREG_NAMES = "r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip rflags segments error vector mask cr2"
INDEX = {name: index for index, name in enumerate(GREG_NAMES.split())}
SIGNALS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP)

_SA_SIGINFO, _SA_ONSTACK, _SA_NODEFER = 0x4, 0x0800_0000, 0x4000_0000
_SIGSET_SIZE = 128

libc = ctypes.CDLL(None, use_errno=True)


def offset_of(name: str) -> int:
    """The offset of one register in ucontext_t."""
    return GREGS + 8 * INDEX[name]


def parse_gregs(raw: bytes) -> dict[str, int]:
    return dict(zip(INDEX, struct.unpack(f"<{GREG_COUNT}Q", raw), strict=True))


def install_handler(address: int, stack: int, stack_size: int) -> None:
    """Machine code at ``address`` becomes the handler of all signals that exceptions lead to, on a stack of its own."""
    alternate = struct.pack("<Qi4xQ", stack, 0, stack_size)
    _check(libc.sigaltstack(alternate, None))
    action = struct.pack(
        f"<Q{_SIGSET_SIZE}si4xQ", address, bytes(_SIGSET_SIZE), _SA_SIGINFO | _SA_ONSTACK | _SA_NODEFER, 0
    )
    for number in SIGNALS:
        _check(libc.sigaction(number, action, None))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "a signal handler can't be installed")
