"""Hostile programs are refused by the static policy; and with the policy off, nothing outside the box notices them."""

import gc
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import carl
from carl.sandbox import lockdown, supervisor
from carl.sandbox.box import Box, Judgement, Limits
from carl.sandbox.policy import violations
from carl.sandbox.process import LOOKS, Child
from tests.sandbox.canaries import SECRET, Canaries
from tests.sandbox.hostile import ATTACKS, Attack
from tests.sandbox.test_box import BRIGHTNESS, children, descriptors, frames, judge, program, unchecked
from tests.sandbox.test_policy import HOSTILE

ROOMY = Limits(deadline_s=5.0, memory_mb=64)
TIGHT = Limits(deadline_s=0.15, wall_factor=2.0, memory_mb=64)
BY_NAME = {attack.name: attack for attack in ATTACKS}
ROOT = Path(carl.__file__).parents[1]

every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


class Outside:
    """What must not notice a program: canaries, a box of somebody else's, and the number of processes and descriptors.

    Attributes:
        places: what programs call these things.
        neighbour: the other box.
    """

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries
        self.neighbour = Box(program(BRIGHTNESS + "# quokka\n"), ROOMY)
        self._shown = np.frombuffer(b"quokka" * 32, np.uint8).reshape(1, 8, 8, 3).copy()
        self._zygote = supervisor.supervise()._process.pid
        self.places = canaries.places | {"neighbour": self.neighbour.pid, "zygote": self._zygote}
        gc.collect()  # what other tests have left is not to be given back during these,
        gc.freeze()  # nor to be gone through by each of them
        self._before = self._held()

    def check(self) -> None:
        """Nothing was touched, the neighbour goes on as if nothing had been, and nothing is left."""
        assert self._canaries.touched() == []
        assert judge(self.neighbour, self._shown).values.tolist() == [ord("q") / 255]
        assert self.neighbour.restarts == 0
        held = zip(self._held(), self._before, strict=True)
        assert all(now <= before for now, before in held), (self._held(), self._before)

    def _held(self) -> tuple[int, int, int]:
        """How many descriptors, children and processes of the zygote there are; what other tests left may go."""
        forked = Path(f"/proc/{self._zygote}/task/{self._zygote}/children").read_text().split()
        return descriptors(), len(children()), len(forked)


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET, "quokka")
        supervisor.dismiss()  # so that the next zygote starts with that secret in its parent's environment
        with Canaries() as canaries:
            outside = Outside(canaries)
            yield outside
            outside.neighbour.close()
    gc.unfreeze()


def answered(source: str, limits: Limits, lies: bool = False) -> Judgement:
    """What a program without a policy says to one frame. Unless it lies, its other sub-task is judged right then."""
    shown = frames(7)
    with Box(program(source, BRIGHTNESS), limits, unchecked) as box:
        judgement = judge(box, shown)
        assert goes_on(box) or lies
    assert (shown == 7).all()
    return judgement


def goes_on(box: Box) -> bool:
    """Whether the second sub-task is judged right, at the latest when the first has ended its process for good."""
    return any(judge(box, frames(51), 1).values.tolist() == [0.2] for _ in range(5))


@every_attack
def test_the_policy_refuses_it(attack: Attack, outside):
    assert bool(violations(attack.source(outside.places, prelude=""))) != attack.legal


@every_attack
def test_the_box_contains_it(attack: Attack, outside):
    judgement = answered(attack.source(outside.places), TIGHT if attack.hangs else ROOMY, bool(attack.lie))
    value, reason = judgement.values[0], judgement.reasons.get(0, "")
    assert math.isnan(value) or 0 <= value <= 1
    assert value != 1.0 or attack.lie
    assert math.isnan(value) == bool(reason)
    assert all(character.isascii() and character.isprintable() for character in reason)
    outside.check()


@pytest.mark.parametrize("name", HOSTILE)
def test_what_the_policy_refuses_is_contained_without_it(name, outside):
    value = answered(HOSTILE[name], TIGHT).values[0]
    assert value == 0.0 or math.isnan(value)
    outside.check()


def test_the_attacks_are_real():
    """In an ordinary process, where nothing holds them, they do what they say."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.sandbox.unboxed"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
        check=True,
    )
    values = json.loads(run.stdout)
    assert len(values) > 100
    assert {name for name, value in values.items() if value != 1.0} == set()


RAISED = ("exit", "interrupt", "a base of my own", "an error that cannot be told", "a number that raises")


@pytest.mark.parametrize("name", RAISED)
def test_whatever_is_raised_is_an_abstain_and_costs_no_process(name, outside):
    source = BY_NAME[f"faults: {name}"].source(outside.places)
    with Box(program(source), ROOMY, unchecked) as box:
        judgement = judge(box, frames(7, 7))
        assert np.isnan(judgement.values).all()
        assert all(why.startswith("raised ") for why in judgement.reasons.values())
        assert box.restarts == 0


def test_nothing_crosses_from_one_box_to_the_next(outside):
    source = BY_NAME["secrets: what was judged here before"].source(outside.places)
    with Box(program(source), ROOMY, unchecked) as first:
        assert judge(first, frames(7, 7)).values.tolist() == [0.0, 1.0]
        assert answered(source, ROOMY).values.tolist() == [0.0]
    assert answered(source, ROOMY).values.tolist() == [0.0]


def test_answers_without_reading_do_not_stall_the_caller(outside):
    """Requests that nobody reads fill the socket; some hundred calls later, sending one must not wait for ever."""
    source = BY_NAME["channel: finished each time, and deaf"].source(outside.places)
    with Box(program(source), TIGHT, unchecked) as box:
        for _ in range(350):
            judge(box, frames(7))
        assert box.restarts >= 1
    outside.check()


def test_a_child_that_is_gone_after_its_answer_is_replaced(outside):
    source = BY_NAME["channel: finished, then gone"].source(outside.places)
    with Box(program(source, BRIGHTNESS), TIGHT, unchecked) as box:
        for _ in range(20):
            judge(box, frames(7))
        assert goes_on(box)
    outside.check()


def test_looks_are_bounded_whatever_a_program_does_to_its_cursor(outside, monkeypatch):
    """A row is begun once: as if each look took its share of the deadline, so many are enough for four rows."""
    looks = itertools.count(1)
    monkeypatch.setattr(Child, "_used_s", lambda self: next(looks) * TIGHT.deadline_s / LOOKS)
    source = BY_NAME["time: endless while it moves the cursor"].source(outside.places)
    with Box(program(source, BRIGHTNESS), TIGHT, unchecked) as box:
        shown = frames(7, 7, 7, 51)
        box.judge(shown, shown, np.array([0, 0, 0, 1]))
        assert next(looks) <= len(shown) * (LOOKS + len(shown) + 1) + 1
        assert goes_on(box)
    outside.check()


def test_a_box_child_has_given_up_what_it_can():
    """Read from outside, where a program cannot lie."""
    with Box(program(BRIGHTNESS)) as box:
        place = Path(f"/proc/{box._child.pid}")
        status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        limits = (place / "limits").read_text()
        if os.geteuid() == 0:
            assert status["Uid"].split() == status["Gid"].split() == [str(lockdown.NOBODY)] * 4
            assert status["Groups"].split() == []
            assert len(os.listdir(place / "fd")) == 1
            assert (place / "environ").read_text().split("=")[0] in supervisor.ENVIRONMENT
        assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
        assert (status["NoNewPrivs"].strip(), status["Threads"].strip()) == ("1", "1")
        if supervisor.supervise().tier >= lockdown.Tier.SECCOMP:
            assert status["Seccomp"].strip() == "2"
        for name in ("open files", "processes", "core file size", "file size"):
            line = next(line for line in limits.splitlines() if line.startswith(f"Max {name}"))
            assert line.split()[-3:-1] == ["0", "0"] or line.split()[-2:] == ["0", "0"], line
