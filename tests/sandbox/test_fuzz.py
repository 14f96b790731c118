"""Whatever the static policy accepts runs in the box with no effect outside, and says the same wherever it runs."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from carl.sandbox import supervisor
from carl.sandbox.box import Box, Judgement, Limits
from carl.sandbox.policy import violations
from carl.sandbox.supervisor import Supervisor
from tests.sandbox.programs import changed, programs
from tests.sandbox.test_box import BRIGHTNESS, judge, program, unchecked
from tests.sandbox.test_hostile import outside  # noqa: F401 - a fixture
from tests.sandbox.test_names import SMALL

ROOT = Path(__file__).parents[2]
LIMITS = Limits(deadline_s=2.0, memory_mb=256, max_kills=99)
DIRTY = {"MALLOC_PERTURB_": "165"}
"""Lets the C library fill memory with this byte before it gives it out, and with another before it takes it back."""

thorough = settings(
    max_examples=15,
    phases=[Phase.generate],  # making a failing program smaller takes minutes
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Sources:
    """Some sources. A failing test shows the one that it failed at, and not all of them."""

    def __init__(self, sources: list[str]) -> None:
        self.accepted = [source for source in sources if not violations(source)]


several = st.lists(programs(), min_size=8, max_size=8).map(Sources)
many_changed = st.lists(changed(), min_size=20, max_size=20).map(Sources)


@pytest.fixture(scope="module")
def dirty() -> Iterator[Supervisor]:
    """Another supervisor, whose children find rubbish in memory that they have not written to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "ENVIRONMENT", supervisor.ENVIRONMENT | DIRTY)
        other = Supervisor(60.0)
        patch.setattr(supervisor, "_supervisor", other)
        judged([BRIGHTNESS])  # whatever a first box opens for good
    yield other
    other.close()


def judged(sources: list[str]) -> Judgement:
    """What each says to the same frame, twice in a row. The frames lie where the child can see them."""
    tasks = np.repeat(np.arange(len(sources)), 2)
    here = np.zeros(len(tasks), dtype=np.intp)
    with Box(program(*sources), LIMITS) as box:
        room = box.room(2, *SMALL.shape[1:3])
        room[:] = SMALL
        judgement = box.judge(room[:1], room[1:], tasks, here, here)
        assert (room == SMALL).all()
    return judgement


def same(sources: list[str], first: Judgement, second: Judgement) -> None:
    late = {row for judgement in (first, second) for row, why in judgement.reasons.items() if "deadline" in why}
    for row, (one, other) in enumerate(zip(first.values, second.values, strict=True)):
        assert math.isnan(one) or 0 <= one <= 1
        assert row in late or np.array_equal(one, other, equal_nan=True), (sources[row // 2], one, other)


@thorough
@given(several)
def test_accepted_programs_have_no_effect_and_are_functions_of_their_frames(dirty, outside, sources):  # noqa: F811
    accepted = sources.accepted
    first = judged(accepted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "_supervisor", dirty)
        second = judged(accepted)
    same(accepted, first, second)
    swapped = np.arange(2 * len(accepted)) ^ 1
    again = {int(swapped[row]): why for row, why in first.reasons.items()}
    same(accepted, first, Judgement(first.values[swapped], again))
    outside.check()


def test_memory_that_was_not_written_to_would_show(dirty):
    """Or else the test above could not fail."""
    source = "def progress(frame, initial):\n    return float(np.empty(5000, np.uint8).mean() / 255)\n"
    assert violations(source)
    values = []
    for other in (supervisor.supervise(), dirty):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(supervisor, "_supervisor", other)
            with Box(program(source), LIMITS, unchecked) as box:
                values.append(judge(box, SMALL[:1]).values[0])
    assert values[0] != values[1]


@thorough
@given(several, many_changed)
def test_accepted_programs_do_not_even_try(sources, others):
    """Without a box, the interpreter's own audit sees no file, import, process or socket. And they all compile."""
    assert _audited(sources.accepted + others.accepted) == ""


@thorough
@given(many_changed)
def test_hostile_programs_that_were_changed_until_accepted_are_harmless(outside, sources):  # noqa: F811
    for source in sources.accepted:
        judged([source])
    outside.check()


def _audited(sources: list[str]) -> str:
    """What events the sources cause, in an interpreter of their own: a fork of this one might hang in a lock of cv2."""
    asked = subprocess.run(
        [sys.executable, "-m", "tests.sandbox.audited"],
        input=json.dumps(sources),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=200,
    )
    if asked.returncode:
        return f"{asked.stderr}, and it ended"
    # LAPACK prints what it thinks of an argument, which is not an event.
    return "".join(line for line in asked.stdout.splitlines(True) if not line.startswith(" ** On entry to "))
