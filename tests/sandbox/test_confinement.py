"""The box works, and holds, for whoever runs it and on kernels that can less; it never runs on less than it says."""

import gc
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import carl
from carl.errors import BoxError
from carl.sandbox import lockdown, process, supervisor, zygote
from carl.sandbox.box import Box
from carl.sandbox.lockdown import NOBODY, Tier
from carl.sandbox.shared import Shared
from tests.sandbox.confined import PLAIN
from tests.sandbox.test_box import BRIGHTNESS, children, descriptors, frames, judge, program

ROOT = Path(carl.__file__).parents[1]


def confined(identity: str, kernel: str = "this kernel", *accepting: str) -> list[dict[str, Any]]:
    """What ``confined`` reports; skips what cannot be had here."""
    environment = {name: value for name, value in os.environ.items() if name != supervisor.ACCEPTED}
    run = subprocess.run(
        [sys.executable, "-m", "tests.sandbox.confined", identity, kernel, *(accepting or [""])],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    reports: list[dict[str, Any]] = json.loads(run.stdout)
    if "impossible" in reports[0]:
        pytest.skip(reports[0]["impossible"])
    return reports


def works(report: dict[str, Any], tier: Tier) -> None:
    assert "error" not in report, report["error"]
    assert report["tier"] == tier.name
    assert report["benign"] == [0.2]
    assert report["restarts"] == 0
    assert not report[
        "traceable"
    ]  # the kernel shows what is in a process as its user's, if that may trace it, and else as root's
    assert not report["orphaned"]
    assert report["child"]["NoNewPrivs"] == ["1"]
    assert {int(*report["child"][name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
    assert report["log"][0].startswith(f"programs run in tier {tier.name}")


WHO = {
    "anybody": os.geteuid() or NOBODY,
    "root in Docker": NOBODY,
    "root without capabilities": 0,
    "root that cannot signal others": 0,
    "root of a namespace": 0,
    "plain user": PLAIN,
    "pod": NOBODY,
}
"""Who runs it, and who the child is then."""


@pytest.mark.parametrize("identity", WHO)
def test_it_holds_everything_whoever_runs_it(identity):
    (report,) = confined(identity)
    works(report, Tier.FULL)
    assert report["succeeded"] == report["touched"] == []
    assert report["child"]["Seccomp"] == ["2"]
    if identity != "root of a namespace":  # which shows its own numbers
        assert set(report["child"]["Uid"]) == {str(WHO[identity])}


def test_without_landlock_nothing_is_missing_but_the_second_lock():
    report, refusal = confined("anybody", "no landlock", "", "full")
    works(report, Tier.SECCOMP)
    assert report["succeeded"] == report["touched"] == []
    assert "landlock fails: [Errno 38] the kernel has no Landlock" in report["log"][0]
    assert "CARL_SANDBOX=seccomp" in refusal["error"]


@pytest.mark.parametrize(("kernel", "tier"), [("no seccomp", Tier.LANDLOCK), ("neither", Tier.RLIMITS)])
def test_without_seccomp_it_refuses_unless_told_otherwise_by_name(kernel, tier):
    *refusals, report = confined("anybody", kernel, "", "seccomp", "full", "nonsense", tier.name.lower())
    for refusal in refusals[:3]:
        assert "seccomp fails: [Errno 125] the kernel takes no filter" in refusal["error"]
        assert ("landlock fails" in refusal["error"]) == (tier == Tier.RLIMITS)
        assert f"CARL_SANDBOX={tier.name.lower()}" in refusal["error"]
    assert "nonsense names no tier of the sandbox" in refusals[3]["error"]
    works(report, tier)
    assert set(report["succeeded"]) <= {
        "files: look",
        "memory: executable",
        "memory: data turned into code",
        *(("files: delete", "processes: kill a sibling", "processes: signal the parent") * (tier == Tier.RLIMITS)),
    }


@pytest.fixture
def fresh(monkeypatch):
    """No supervisor before, none that this test has tampered with afterwards, and nothing left of it."""
    supervisor.dismiss()
    gc.collect()
    before = descriptors(), children()
    yield
    supervisor.dismiss()
    gc.collect()  # errors that were caught may hold frames, and these memory and its descriptors
    assert (descriptors(), children()) == before


def shimmed(monkeypatch, tmp_path: Path, pyseccomp: str) -> None:
    """Let zygotes find this in place of pyseccomp."""
    (tmp_path / "pyseccomp.py").write_text(pyseccomp)
    folders = supervisor._import_folders()
    monkeypatch.setattr(supervisor, "_import_folders", lambda: (str(tmp_path), *folders))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise RuntimeError('Unable to find libseccomp')", "seccomp fails: Unable to find libseccomp"),
        ("raise ImportError('No module named pyseccomp')", "seccomp fails: No module named pyseccomp"),
    ],
)
def test_a_library_that_is_missing_is_named(fresh, monkeypatch, tmp_path, code, why):
    shimmed(monkeypatch, tmp_path, code)
    with pytest.raises(BoxError, match=why):
        Box(program(BRIGHTNESS))
    monkeypatch.setenv(supervisor.ACCEPTED, "landlock")
    with Box(program(BRIGHTNESS)) as box:
        assert judge(box, frames(51)).values.tolist() == [0.2]


FAILS_LATER = """
import importlib.util, resource, sys
spec = importlib.util.find_spec("pyseccomp_original")
from pyseccomp_original import *

class SyscallFilter(SyscallFilter):
    def load(self):
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 0:  # in a child, and not when it is tried out
            OUTCOME
        super().load()
"""


@pytest.mark.parametrize(
    ("outcome", "why"),
    [("raise OSError(12, 'no memory')", "takes no filter"), ("return", None)],
    ids=["raises", "does nothing"],
)
def test_a_filter_that_fails_after_it_was_tried_out_lets_no_program_run(fresh, monkeypatch, tmp_path, outcome, why):
    import pyseccomp

    (tmp_path / "pyseccomp_original.py").write_text(Path(pyseccomp.__file__).read_text())
    shimmed(monkeypatch, tmp_path, FAILS_LATER.replace("OUTCOME", outcome))
    monkeypatch.setattr(process, "PAUSES_S", ())
    if why:
        with pytest.raises(BoxError, match=f"did not start; it answered !OSError.*{why}"):
            Box(program(BRIGHTNESS))
    else:  # the other locks still hold
        with Box(program(BRIGHTNESS)) as box:
            assert judge(box, frames(51)).values.tolist() == [0.2]


STEPS = ("drop_capabilities", "prctl", "restrict_files", "restrict_resources", "restrict_calls", "address_space")


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_in_the_child_ends_it(monkeypatch, step):
    def failing(*_: object) -> None:
        raise OSError("refused")

    monkeypatch.setattr(lockdown, step, failing)
    said, status = forked()
    assert said.startswith(b"!OSError: refused")
    assert status == 1


def test_a_child_that_nothing_holds_ends(monkeypatch):
    for step in STEPS[2:5]:
        monkeypatch.setattr(lockdown, step, lambda *_: None)
    said, status = forked()
    assert said.startswith(b"!AssertionError: this process can still open files")
    assert status == 1


def forked() -> tuple[bytes, int]:
    """What a zygote's child says until it ends, and its exit code; it is never told a program."""
    ours, theirs = socket.socketpair()
    _, memory = Shared.create()
    with ours, theirs:
        child = zygote.Zygote(theirs, {})._fork([os.dup(theirs.fileno()), *memory], 64)
        theirs.close()
        said = ours.recv(1000)
        ours.shutdown(socket.SHUT_RDWR)
        return said, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
