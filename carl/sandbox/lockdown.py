"""What a box's child gives up before it runs a program, and tests whether this machine enforces it.

Four mechanisms, each sufficient against most attempts: a seccomp list of system calls, Landlock's denial of every
file, resource limits, and another user in place of root. A zygote tests the first two before it relies on them; the
tier names those that held.
"""

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import IntEnum

NOBODY = 65534
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38

CAPABILITY_VERSION = 0x20080522
TO_DROP_ROOT = 1 << 5 | 1 << 6 | 1 << 7
"""Capabilities KILL, SETGID and SETUID (linux/capability.h). Without the first, root could not end a child of another
user, not even by PR_SET_PDEATHSIG."""

LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446
"""Numbers of system calls, the same on every architecture."""

LANDLOCK_FS = (0, 13, 14, 15, 15, 16)
"""Kinds of access to files in each version of Landlock's interface (linux/landlock.h)."""

LANDLOCK_NET, LANDLOCK_SCOPE = 2, 2
"""Kinds of access to TCP from version 4 on; and, from version 6 on, ways to others' processes: sockets, signals."""

CALLS = (
    *("brk", "munmap", "mremap", "madvise", "futex"),
    *("rt_sigreturn", "rt_sigprocmask", "restart_syscall"),
    *("clock_gettime", "clock_getres", "gettimeofday", "getrandom"),
    *("exit", "exit_group"),
)
"""What numpy, cv2 and the interpreter need while a program runs. Besides: memory that is not executable may be mapped
and protected, and the one socket to the caller read and written."""

_libc = ctypes.CDLL(None, use_errno=True)


class Tier(IntEnum):
    """The mechanisms that confine a program, weakest first: resource limits always, one of the others, or all."""

    RLIMITS = 0
    LANDLOCK = 1
    SECCOMP = 2
    FULL = 3

    @classmethod
    def of(cls, failures: Mapping[str, str]) -> "Tier":
        """The tier where the mechanisms in ``failures`` do not work."""
        return cls(2 * ("seccomp" not in failures) + ("landlock" not in failures))


def probe() -> dict[str, str]:
    """Mechanisms that do not work on this machine, and why. Each is tested in its own process."""
    tried: dict[str, tuple[Callable[[int], None], tuple[Callable[[], object], ...]]] = {
        "seccomp": (restrict_calls, (_open, _connect, _fork, _map_code)),
        "landlock": (lambda _: restrict_files(), (_open,)),
    }
    found = {name: _tried(confine, attempts) for name, (confine, attempts) in tried.items()}
    return {name: why for name, why in found.items() if why}


def lock_down(channel: int, memory_mb: int, failures: Mapping[str, str]) -> None:
    """Give up everything but ``channel``, ``memory_mb`` MiB more of address space than now, and the processor.

    ``failures`` names the mechanisms to do without. Raises OSError if any of the others fails, and
    AssertionError if files can be opened after all.
    """
    parent, memory = os.getppid(), address_space() + (memory_mb << 20)
    drop_root()
    drop_capabilities()
    prctl(PR_SET_DUMPABLE, 0)  # no process may trace it, and a crash starts no collector of core dumps
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # changing the user has cleared it
    if os.getppid() != parent:
        os._exit(1)  # the parent ended before the signal was set
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if "landlock" not in failures:
        restrict_files()
    restrict_resources(memory)
    if "seccomp" not in failures:
        restrict_calls(channel)
    with suppress(OSError):
        _open()
        raise AssertionError("this process can still open files")


def drop_root() -> None:
    """Become the user nobody, if this process is root and has the capabilities."""
    if os.geteuid() == 0 and _capabilities() & TO_DROP_ROOT == TO_DROP_ROOT:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError:
            return  # a container without other users to become


def drop_capabilities() -> None:
    """Give up all capabilities; raises OSError."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    _checked(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def _capabilities() -> int:
    """The first 32 effective capabilities, as bits."""
    found = (ctypes.c_uint32 * 6)()
    _checked(_libc.capget((ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), found), "capget")
    return found[0]


def restrict_files() -> None:
    """Let Landlock deny access to files, TCP, and other processes' sockets and signals, as far as the kernel can."""
    version = _libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, 1)
    if version < 1:
        raise OSError(ctypes.get_errno(), "the kernel has no Landlock")
    kinds = [LANDLOCK_FS[min(version, len(LANDLOCK_FS) - 1)]]
    kinds += [LANDLOCK_NET] * (version >= 4) + [LANDLOCK_SCOPE] * (version >= 6)
    handled = (ctypes.c_uint64 * len(kinds))(*((1 << kind) - 1 for kind in kinds))
    ruleset = _checked(_libc.syscall(LANDLOCK_CREATE_RULESET, handled, ctypes.sizeof(handled), 0), "landlock")
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    _checked(_libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock")
    os.close(ruleset)


def address_space() -> int:
    """Size of this process's address space, in bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def restrict_resources(memory: int) -> None:
    """No new files, processes or core dumps; ``memory`` bytes of address space in all."""
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 0,
    }
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def restrict_calls(channel: int) -> None:
    """Let seccomp answer EPERM to every system call but ``CALLS``, and reading and writing ``channel``."""
    import pyseccomp

    rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ERRNO(errno.EPERM))
    for name in CALLS:
        rules.add_rule(pyseccomp.ALLOW, name)
    for name in ("mmap", "mprotect"):
        rules.add_rule(pyseccomp.ALLOW, name, pyseccomp.Arg(2, pyseccomp.MASKED_EQ, mmap.PROT_EXEC, 0))
    for name in ("read", "write"):
        rules.add_rule(pyseccomp.ALLOW, name, pyseccomp.Arg(0, pyseccomp.EQ, channel))
    try:
        rules.load()
    except OSError as error:  # libseccomp reports "Operation canceled" for every reason
        raise OSError(error.errno, "the kernel takes no filter for system calls") from error


def prctl(option: int, value: int) -> None:
    """``prctl(2)`` with one argument; raises OSError."""
    _checked(_libc.prctl(option, value, 0, 0, 0), "prctl")


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def _tried(confine: Callable[[int], None], attempts: tuple[Callable[[], object], ...]) -> str:
    """Why ``confine`` does not work, "" if it does: in a child process every attempt worked before it, none after."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            why = _attempted(lambda: confine(writer), attempts)
        except BaseException as error:  # no exception may leave the fork, which would go on as its parent
            why = str(error) or type(error).__name__
        os.write(writer, why.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        why = pipe.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return why or (f"the attempt ended with {status}" if status else "")


def _attempted(confine: Callable[[], None], attempts: tuple[Callable[[], object], ...]) -> str:
    for attempt in attempts:
        attempt()
    confine()
    for attempt in attempts:
        try:
            attempt()
        except PermissionError:
            continue
        return f"it did not stop a process from {(attempt.__doc__ or '').rstrip('.')}"
    return ""


def _open() -> None:
    """opening a folder."""
    os.close(os.open("/", os.O_RDONLY))


def _connect() -> None:
    """making a socket."""
    socket.socket(socket.AF_UNIX).close()


def _fork() -> None:
    """forking."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _map_code() -> None:
    """mapping executable memory."""
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
