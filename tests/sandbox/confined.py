"""Runs boxes as somebody else, or on a kernel that can less, in a process of its own: nothing of this can be undone.

Arguments: one of ``IDENTITIES``, one of ``KERNELS``, and tiers to accept one after the other. Prints JSON: what
happened each time, or why it cannot be tried here.
"""

import ctypes
import errno
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pyseccomp

import carl
from carl.errors import BoxError
from carl.sandbox import lockdown, supervisor
from carl.sandbox.box import Box, Limits
from tests.sandbox.canaries import SECRET, Canaries
from tests.sandbox.hostile import ATTACKS, SYSTEM_CALLS
from tests.sandbox.test_box import BRIGHTNESS, frames, judge, program, unchecked

PLAIN, NOBODY = 12345, 65534
NEW_NAMESPACE, NEW_USER = 0x00020000, 0x10000000
BIND, RECURSIVE, PRIVATE = 4096, 16384, 1 << 18

WORST = (
    *("files: read", "files: delete", "files: create", "files: look", "files: numpy fromfile", "files: mount"),
    *("processes: fork", "processes: thread", "processes: exec", "processes: shell that writes"),
    *("processes: kill a sibling", "processes: signal the parent", "processes: trace a sibling"),
    *("rights: root", "rights: capabilities", "rights: no limits", "rights: files again", "rights: an open filter"),
    *("network: tcp", "network: a named socket", "network: an abstract socket", "network: close the channel"),
    *("memory: executable", "memory: data turned into code", "memory: frames protected otherwise"),
    *("memory: a quarter of a gigabyte of mappings", "memory: crash", "secrets: environment"),
    *("time: endless", "time: endless with all signals blocked", "channel: garbage", "channel: finished many times"),
)

WITHHELD = """
acct add_key bpf chroot clock_settime create_module delete_module fanotify_init finit_module fsconfig fsmount fsopen
fspick get_kernel_syms get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp
kexec_file_load kexec_load keyctl lookup_dcookie mbind mount mount_setattr move_mount move_pages nfsservctl
open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise query_module quotactl quotactl_fd
reboot request_key set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday swapoff swapon
sysfs syslog umount2 unshare uselib userfaultfd ustat vhangup
"""
"""What Docker's default profile keeps from a container without capabilities, besides namespaces, clone3 and two kinds
of sockets: docs.docker.com/engine/security/seccomp, and profiles/seccomp/default.json in github.com/moby/moby."""

NAMESPACES = 0x7E020000
"""The flags of clone that the profile masks."""

_libc = ctypes.CDLL(None, use_errno=True)


class Impossible(Exception):
    """What is asked for cannot be had here."""


def become(user: int) -> None:
    """Drop root for good."""
    if os.geteuid() == user:
        return
    if os.geteuid() != 0:
        raise Impossible("only root can become somebody else")
    open_up()
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def open_up() -> None:
    """Let other users reach the interpreter and this checkout, in this process's own view of the file system."""
    needed = {Path(path).resolve() for path in (sys.base_prefix, sys.prefix, Path(carl.__file__).parents[1])}
    hidden = {path: place for path in needed if (place := _barrier(path))}
    if not hidden:
        return
    try:
        _called(_libc.unshare, NEW_NAMESPACE)
        _called(_libc.mount, None, b"/", None, RECURSIVE | PRIVATE, None)
        held = {path: os.open(path, os.O_PATH) for path in hidden}
        for place in set(hidden.values()):
            _called(_libc.mount, b"none", bytes(place), b"tmpfs", 0, b"mode=755")
        for path, descriptor in held.items():
            path.mkdir(parents=True, exist_ok=True)
            _called(_libc.mount, f"/proc/self/fd/{descriptor}".encode(), bytes(path), None, BIND | RECURSIVE, None)
    except OSError as error:
        raise Impossible(
            f"other users cannot read {', '.join(map(str, hidden))}, nor can a mount help: {error}"
        ) from error


def _barrier(path: Path) -> Path | None:
    """The topmost folder on the way to ``path`` that others may not enter."""
    return next((place for place in [*reversed(path.parents), path] if not place.stat().st_mode & 0o001), None)


def drop_capabilities(kept: int = 0) -> None:
    """All but ``kept``, as bits, for good: out of the bounding set too."""
    for capability in range(64):
        if not kept >> capability & 1:
            _libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; there are not so many
    header = (ctypes.c_uint32 * 2)(lockdown.CAPABILITY_VERSION, 0)
    _called(_libc.capset, header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0))


def docker() -> None:
    """Docker's default seccomp profile, as far as it withholds anything."""
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refused = pyseccomp.ERRNO(errno.EPERM)
    for name in WITHHELD.split():
        if pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) >= 0:
            rules.add_rule(refused, name)
    for bit in range(32):
        if NAMESPACES >> bit & 1:
            rules.add_rule(refused, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, 1 << bit, 1 << bit))
    for family in (38, 40):  # AF_ALG, AF_VSOCK
        rules.add_rule(refused, "socket", pyseccomp.Arg(0, pyseccomp.EQ, family))
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    lockdown.prctl(lockdown.PR_SET_NO_NEW_PRIVS, 1)
    rules.load()


def pod() -> None:
    become(NOBODY)
    if os.geteuid() == 0:
        raise Impossible("this process stays root")
    drop_capabilities()
    docker()


def alone_in_a_namespace() -> None:
    """Root of a container that has no other users."""
    user, group = os.geteuid(), os.getegid()
    try:
        _called(_libc.unshare, NEW_USER)
    except OSError as error:
        raise Impossible(f"no user namespace can be made: {error}") from error
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def root(capabilities: int) -> None:
    """Keep some capabilities only."""
    if os.geteuid() != 0:
        raise Impossible("this process is not root")
    drop_capabilities(capabilities)


IDENTITIES: dict[str, Callable[[], None]] = {
    "anybody": lambda: None,
    "root in Docker": lambda: (root(0xA80425FB), docker()),  # the capabilities that Docker leaves to root
    "root without capabilities": lambda: (root(0), docker()),
    "root that cannot signal others": lambda: root(1 << 6 | 1 << 7),
    "root of a namespace": alone_in_a_namespace,
    "plain user": lambda: become(PLAIN),
    "pod": pod,
}


def _without(landlock: bool = True, seccomp: bool = True) -> None:
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    if not landlock:
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "landlock_create_ruleset")
    if not seccomp:
        rules.add_rule(pyseccomp.ERRNO(errno.EINVAL), "seccomp")
        rules.add_rule(pyseccomp.ERRNO(errno.EINVAL), "prctl", pyseccomp.Arg(0, pyseccomp.EQ, 22))
    rules.load()


KERNELS: dict[str, Callable[[], None]] = {
    "this kernel": lambda: None,
    "no landlock": lambda: _without(landlock=False),
    "no seccomp": lambda: _without(seccomp=False),
    "neither": lambda: _without(landlock=False, seccomp=False),
}


def report() -> dict[str, Any]:
    """What became of the worst programs, a hang, and a benign program."""
    os.environ[SECRET] = "quokka"
    with Canaries() as canaries, Box(program(BRIGHTNESS), Limits(memory_mb=64)) as neighbour:
        places = canaries.places | {"neighbour": neighbour.pid, "zygote": os.getpid()}
        tier = supervisor.supervise().tier
        succeeded = []
        for attack in ATTACKS:
            if attack.name in WORST or (attack is SYSTEM_CALLS and tier >= lockdown.Tier.SECCOMP):
                limits = Limits(deadline_s=0.15 if attack.hangs else 5.0, memory_mb=64)
                with Box(program(attack.source(places)), limits, unchecked) as box:
                    value = judge(box, frames(7)).values[0]
                if value == 1.0 and not attack.lie:
                    succeeded.append(attack.name)
        status = Path(f"/proc/{neighbour.pid}/status").read_text().splitlines()
        return {
            "tier": tier.name,
            "succeeded": succeeded,
            "touched": canaries.touched(),
            "benign": judge(neighbour, frames(51)).values.tolist(),
            "restarts": neighbour.restarts,
            "child": {name: value.split() for name, value in (line.split(":", 1) for line in status)},
            "traceable": os.stat(f"/proc/{neighbour.pid}/environ").st_uid != 0,
            "orphaned": _outlives_its_zygote(neighbour.pid),
        }


def _outlives_its_zygote(child: int) -> bool:
    supervisor.supervise()._process.kill()
    place, end = Path(f"/proc/{child}/stat"), time.monotonic() + 5
    while place.exists() and place.read_text().rpartition(")")[2].split()[0] != "Z":
        if time.monotonic() > end:
            return True
        time.sleep(0.01)
    return False


def main() -> None:
    identity, kernel, *accepting = sys.argv[1:]
    try:
        IDENTITIES[identity]()
        KERNELS[kernel]()
        reports = [accepted(tier) for tier in accepting]
    except Impossible as error:
        reports = [{"impossible": str(error)}]
    print(json.dumps(reports))


def accepted(tier: str) -> dict[str, Any]:
    """What happens if that tier is accepted, "" for none that is named; and what is logged."""
    if tier:
        os.environ[supervisor.ACCEPTED] = tier
    supervisor.dismiss()
    with Logged() as log:
        try:
            return report() | {"log": log.said}
        except BoxError as error:
            return {"error": str(error)}


class Logged(logging.Handler):
    """Remembers what ``carl`` logs."""

    def __enter__(self) -> Self:
        self.said: list[str] = []
        self._log = logging.getLogger("carl")
        self._log.setLevel(logging.INFO)
        self._log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def _called(function: Any, *arguments: Any) -> None:
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main()
