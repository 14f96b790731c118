"""Supervisor and zygote outlive what happens to processes: deaths, interrupts, threads, forks, and a lack of room."""

import gc
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from carl.errors import BoxError
from carl.sandbox import process, supervisor
from carl.sandbox.box import Box, Limits
from carl.sandbox.supervisor import Supervisor, supervise
from tests.sandbox.test_box import BRIGHTNESS, children, descriptors, frames, judge, program
from tests.sandbox.test_confinement import shimmed

LIGHT = Limits(deadline_s=5.0, memory_mb=64)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Each test starts without a supervisor, and leaves neither descriptors nor processes."""
    before = _held()
    yield
    assert _held() == before


def _held() -> tuple[int, list[str]]:
    supervisor.dismiss()
    gc.collect()  # errors that were caught may hold frames, and these memory and its descriptors
    return descriptors(), children()


def opened() -> Box:
    return Box(program(BRIGHTNESS), LIGHT)


def works(box: Box) -> bool:
    return judge(box, frames(0, 51, 255)).values.tolist() == [0.0, 0.2, 1.0]


def zygote() -> int:
    return supervise()._process.pid


def forked() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{zygote()}/task/{zygote()}/children").read_text().split()]


def test_a_spare_child_that_died_is_not_handed_out():
    with opened() as first:
        deadline = time.monotonic() + 10
        while not (spares := set(forked()) - {first.pid}):  # it is forked while the first one is at work
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (spare,) = spares
        os.kill(spare, signal.SIGKILL)
        time.sleep(0.05)
        with opened() as second:
            assert works(first)
            assert works(second)
            assert second.restarts == 0


def test_a_zygote_that_dies_is_replaced_with_its_children():
    with opened() as box:
        before = zygote()
        os.kill(before, signal.SIGKILL)
        time.sleep(0.05)
        assert works(box)
        assert box.restarts == 1
        assert zygote() != before
        with opened() as another:
            assert works(another)


def test_a_zygote_that_answers_no_more_is_replaced():
    before = zygote()
    supervise()._control.settimeout(0.5)
    os.kill(before, signal.SIGSTOP)
    with opened() as box:
        assert works(box)
        assert zygote() != before


def test_an_interrupt_between_question_and_answer_confuses_nobody(monkeypatch):
    with opened() as box:
        receive = Supervisor._receive

        def interrupted(self: Supervisor) -> None:
            receive(self)
            raise KeyboardInterrupt

        monkeypatch.setattr(Supervisor, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened()
        monkeypatch.setattr(Supervisor, "_receive", receive)
        assert works(box)
        with opened() as another:
            assert works(another)


def test_without_descriptors_it_says_so_and_harms_nobody(monkeypatch):
    with opened() as box:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        before, started = box.pid, zygote()
        monkeypatch.setattr(process, "PAUSES_S", ())
        held = [os.open("/", os.O_RDONLY) for _ in range(8)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, hard))
        try:
            with pytest.raises(BoxError, match=r"no room for another process .* Too many open files"):
                Box(program(BRIGHTNESS), Limits(memory_mb=99))
        finally:
            for descriptor in held:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert works(box)
        assert (box.pid, zygote()) == (before, started)
        with opened() as another:
            assert works(another)


def test_a_process_that_cannot_be_started_is_tried_again_after_growing_pauses(monkeypatch, caplog):
    """The zygote dies while it starts, twice, as on a machine without memory to spare."""
    starts, pauses = [], []
    start = supervisor._start_zygote

    def failing(control: int) -> "subprocess.Popen[bytes]":
        starts.append(start(control))
        if len(starts) <= 3:
            starts[-1].kill()
        return starts[-1]

    monkeypatch.setattr(supervisor, "_start_zygote", failing)
    monkeypatch.setattr(process, "time", SimpleNamespace(**vars(time) | {"sleep": pauses.append}))
    with opened() as box:
        assert works(box)
    assert len(starts) == 4
    assert pauses == sorted(set(pauses)), "each is longer than the one before"
    assert caplog.text.count("is started again in") == 2, "the first time it is tried again at once"


def test_a_process_that_stays_away_is_an_error(monkeypatch):
    def failing(_: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["false"], stderr=subprocess.PIPE)

    monkeypatch.setattr(process, "PAUSES_S", (0.0, 0.01))
    monkeypatch.setattr(supervisor, "_start_zygote", failing)
    with pytest.raises(BoxError, match=r"do not start or stay alive: .* ended before it was ready"):
        opened()


FEW_FORKS = """
import os
forks, fork = [], os.fork
def limited():
    forks.append(1)
    if len(forks) > 3:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = limited
from pyseccomp_original import *
"""


def test_a_zygote_that_cannot_fork_says_so_and_lives(monkeypatch, tmp_path):
    import pyseccomp

    (tmp_path / "pyseccomp_original.py").write_text(Path(pyseccomp.__file__).read_text())
    monkeypatch.setattr(process, "PAUSES_S", (0.0, 0.01))
    shimmed(monkeypatch, tmp_path, FEW_FORKS)  # two forks to try things out, and one for a child
    with opened() as box:
        before = zygote()
        for _ in range(3):
            with pytest.raises(BoxError, match="Resource temporarily unavailable"):
                opened()
        assert zygote() == before
        assert works(box)


def test_many_threads_while_zygotes_die():
    failures: list[BaseException] = []
    done: list[int] = []
    kills = 0

    def work() -> None:
        try:
            while kills < 3:
                with opened() as box:
                    assert works(box)
                done.append(1)
        except BaseException as error:  # told by the test below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while kills < 3 and not failures:
        if len(done) >= 10:  # so that nobody meets all the deaths at one try
            done.clear()
            with suppress(ProcessLookupError):
                os.kill(zygote(), signal.SIGKILL)
            kills += 1
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_fork_of_the_caller_has_a_zygote_of_its_own():
    with opened() as box:
        pid, started = box.pid, zygote()
        copy = os.fork()
        if copy == 0:
            os._exit(0 if _apart(box, started) else 1)
        assert os.waitpid(copy, 0)[1] == 0
        assert works(box)
        assert (box.pid, box.restarts, zygote()) == (pid, 0, started)


def _apart(inherited: Box, started: int) -> bool:
    """In a fork: another box works, and closing the inherited one does nothing to its child."""
    with opened() as box:
        worked = works(box)
    inherited.close()
    other = zygote() != started
    supervisor.dismiss()
    return worked and other


def test_boxes_with_other_limits_get_other_children():
    with opened(), Box(program(BRIGHTNESS), Limits(memory_mb=128)) as roomy, opened() as light:
        assert works(roomy)
        assert works(light)
        held = [int(np.ceil(_address_space(pid) / (1 << 20))) for pid in (roomy.pid, light.pid)]
        assert held[0] - held[1] == 64


def _address_space(pid: int) -> int:
    limits = Path(f"/proc/{pid}/limits").read_text()
    return int(next(line for line in limits.splitlines() if line.startswith("Max address space")).split()[3])
