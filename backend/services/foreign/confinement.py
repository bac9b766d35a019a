"""Takes away from this process, for ever, whatever reading a file of anybody's does not need.

Limits of memory and processor time; no new files, sockets, processes or signals. Runs in the child that reads a
foreign file, after the libraries are loaded and before the first byte is looked at. Knows no file.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from typing import Final

#: System calls that are left, by machine: memory, locks, the clock, and reading and writing what is open. Numbers are
#: those of the kernel's tables (`arch/x86/entry/syscalls/syscall_64.tbl`, `include/uapi/asm-generic/unistd.h`).
_ALLOWED: Final = {
    "x86_64": {
        **{"read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11},
        **{"brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19},
        **{"writev": 20, "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "exit": 60},
        **{"gettimeofday": 96, "getrusage": 98, "sigaltstack": 131, "gettid": 186, "futex": 202},
        **{"sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228, "clock_nanosleep": 230},
        **{"exit_group": 231, "getrandom": 318, "rseq": 334},
    },
    "aarch64": {
        **{"close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "fstat": 80},
        **{"exit": 93, "exit_group": 94, "futex": 98, "nanosleep": 101, "clock_gettime": 113, "clock_nanosleep": 115},
        **{"sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132},
        **{"rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "getrusage": 165, "gettimeofday": 169},
        **{"getpid": 172, "gettid": 178, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226},
        **{"madvise": 233, "getrandom": 278, "rseq": 293},
    },
}
_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NO_NEW_PRIVILEGES, _SET_FILTER, _FILTER_MODE = 38, 22, 2  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER
#: Instructions of the kernel's filters: load a word, jump if equal, jump if not below, answer.
_LOAD, _EQUAL, _NOT_BELOW, _ANSWER = 0x20, 0x15, 0x35, 0x06
_GO_ON, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000  # SECCOMP_RET_ALLOW, _ERRNO, _KILL_PROCESS
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # offsets in `struct seccomp_data`
_X32: Final = 0x40000000  # numbers of a second, rarely used table of x86
_REFUSED_WITH: Final = 1  # EPERM


def confine(memory_bytes: int, cpu_seconds: int) -> bool:
    """Give up what is not needed; return whether the kernel refuses system calls, too, and not only limits exist.

    Open files stay usable. The limits cannot be raised again.

    Args:
        memory_bytes: address space, the libraries included.
        cpu_seconds: seconds of processor time.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    # The soft limit is a signal that ends the process; the hard one is for a process that would ignore it.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    # A file or socket needs a number, and those below 3 are taken: nothing can be opened, whatever kind it is.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    for none in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(none, (0, 0))
    return sys.platform == "linux" and _refuse_calls(platform.machine())


def _refuse_calls(machine: str) -> bool:
    """Have the kernel refuse every call but the allowed ones; False where it has no such filters."""
    if machine not in _ALLOWED or struct.calcsize("P") != 8:
        return False
    numbers = sorted(_ALLOWED[machine].values())
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_ANSWER, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_NOT_BELOW, 0, 1, _X32),
        (_ANSWER, 0, 0, _KILL),
        *((_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)),
        (_ANSWER, 0, 0, _REFUSE | _REFUSED_WITH),
        (_ANSWER, 0, 0, _GO_ON),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    instructions = ctypes.create_string_buffer(code, len(code))
    # `struct sock_fprog`: the number of instructions, padding, and their address.
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(instructions))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    buffer = ctypes.create_string_buffer(header, len(header))
    return bool(prctl(_SET_FILTER, _FILTER_MODE, ctypes.addressof(buffer), 0, 0) == 0)


def end(status: int) -> None:
    """End this process at once; what it had open was never its own to tidy up."""
    os._exit(status)
