"""The rules of the watch: what they call an alarm, and what they leave alone."""

from dataclasses import replace

import numpy as np
import pytest

from carl.program import RewardProgram, SubTask
from carl.training.alarms import CompletedUnsolved, Point, alarms_of, at_least, at_most, completions_unsolved
from carl.training.evaluation import Outcome
from carl.verification.episode import Episode, Track
from carl.verification.rule import Case, Evidence

CODE = "def progress(frame, initial):\n    return 0.0\n"
PROGRAM = RewardProgram(subtasks=tuple(SubTask(name=name, code=CODE) for name in ("key", "door")))


def point(succeeded: int, earned: float, done=(32, 0), paid=(0, 0), steps: int = 0) -> Point:
    return Point(steps, 32, succeeded, earned, done, paid)


def rules(*points: Point) -> list[str]:
    return [alarm.rule for alarm in alarms_of(points, PROGRAM)]


def test_a_point_takes_the_environments_own_reward_and_the_weight_out_of_what_was_earned() -> None:
    outcomes = [
        Outcome(True, 5, 2.0 * 0.5 + 0.9 * 0.75, 0, env_ret=0.9, shown=(1.0, 1.0, 0.0)),
        Outcome(False, 9, 1.0 * 0.5, 0, shown=(1.0, 0.8, 0.0)),
    ]
    found = Point.of(7, outcomes, PROGRAM, weight=0.5, env_weight=0.75)
    assert found == Point(7, 2, 1, pytest.approx(0.75), done=(2, 1), paid=(0, 1))
    assert Point.of(7, [Outcome(True, 5, 1.0, 0)], PROGRAM).done == (), "a policy that is shown nothing"


def test_a_training_that_learns_raises_nothing() -> None:
    learning = [point(n, earned) for n, earned in ((0, 0.2), (2, 0.5), (9, 0.7), (20, 0.9), (32, 1.0), (31, 1.0))]
    assert not any(rules(*learning[: count + 1]) for count in range(len(learning)))
    slow = [point(0, 0.5, done=(32, 0), paid=(0, 10))] * 6
    assert rules(*slow) == [], "not near the bound, and few wait before a door"
    assert rules() == []


def test_a_return_at_its_bound_without_success_is_an_alarm_once_it_lasts() -> None:
    full = [point(3, 0.95), point(2, 0.97), point(1, 1.0)]
    assert rules(*full[:2]) == []
    assert rules(*full) == ["paid_unsolved"]
    assert rules(point(0, 0.95), point(1, 0.97), point(3, 1.0)) == [], "it rises"
    assert rules(point(14, 0.95), point(14, 0.97), point(13, 1.0)) == [], "32 episodes cannot tell 14 from half"


def test_success_that_falls_while_the_return_does_not_is_an_alarm() -> None:
    assert rules(point(20, 0.8), point(1, 0.8)) == ["success_fell"]
    assert rules(point(20, 0.8), point(1, 0.3)) == [], "both fell: the policy is worse, by the program's measure too"
    assert rules(point(8, 0.8), point(3, 0.8)) == [], "that may be chance"


def test_a_subtask_that_pays_and_never_gets_done_is_an_alarm() -> None:
    stuck = [point(0, 0.6, done=(32, 0), paid=(0, 30))] * 3
    assert rules(*stuck) == ["paid_undone"]
    assert "sub-task 2 ('door')" in alarms_of(stuck, PROGRAM)[0].message
    assert rules(*stuck[:2], replace(stuck[2], done=(32, 2))) == [], "it begins to get done"


EPISODE = Episode(
    source="policy",
    seed=1,
    steps=100,
    solved=False,
    completed=True,
    tracks=(Track(0, (0.0, 0.0, 0.0, 1.0)), Track(3, (0.0,) * 6 + (1.0,))),
    actions=np.zeros(100, dtype=np.int64),
)


def judged(unsolved: int, solved: int, *training: int, steps: int = 100, allowed: float = 0.0) -> bool:
    episodes = [replace(EPISODE, steps=steps)] * unsolved + [replace(EPISODE, solved=True)] * solved
    (check,) = CompletedUnsolved(20, *training, allowed=allowed).judge(Case(PROGRAM, {Evidence.POLICY: episodes}))
    assert check.figures["completed_unsolved"] == len(check.frames) or len(check.frames) in (0, 5)
    return check.passed


def test_completion_without_success_is_decided_by_exact_bounds() -> None:
    assert judged(6, 2)
    assert not judged(7, 1)
    assert judged(0, 8, 50, 10), "counts alone decide nothing: success may come after completion"
    assert not judged(1, 7, 50, 10), "with an example they do"
    assert judged(1, 7, 50, 48)
    assert judged(1, 7, 50, 30, allowed=0.35), "what the task's settings allow a policy is no alarm"
    assert not judged(1, 7, 50, 30, allowed=0.1)
    assert judged(8, 0, steps=25), "cut 16 steps after completion, with 20 left to solve it"
    assert at_least(0, 8) == 0.0
    assert at_most(8, 8) == 1.0
    assert (at_least(0, 0), at_most(0, 0), completions_unsolved(3, 9)) == (0.0, 1.0, 0.0)
