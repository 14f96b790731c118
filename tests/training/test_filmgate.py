"""The gate's rules on a policy's films: with the recorded experts beside them, which are shown once."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.misleading import CAPPED
from carl.config import VerifyConfig
from carl.episodes.play import made, rollout
from carl.episodes.trajectory import Trajectory
from carl.program import RewardProgram, SubTask
from carl.tasks import get_task
from carl.training.alarms import CompletedUnsolved, PaidForNothing
from carl.training.filmgate import FilmGate
from carl.verification.gate import verify
from carl.verification.report import Check
from carl.verification.rule import Evidence

OWN = (CompletedUnsolved(0), PaidForNothing(0.02))
STAY, WALK = 0, 1


def episode(where: Sequence[int], seed: int = 0, role: str = "policy", steps_paid: int = 0) -> Trajectory:
    """An agent at the places ``where``, of which 4 is the goal; channel 1 counts the steps."""
    frames = np.zeros((len(where), 8, 8, 3), np.uint8)
    frames[:, 0, 0, 0], frames[:, 0, 0, 1], frames[:, 0, 0, 2] = where, np.arange(len(where)), seed
    frames[:, 0, 1, 0] = np.minimum(np.arange(len(where)) * steps_paid, 10)
    solved = where[-1] == 4
    actions = np.where(np.diff(where) == 0, STAY, WALK)
    return Trajectory(frames, actions, np.zeros(len(actions)), solved, not solved, solved, seed, role)


def way(seed: int, pauses: int) -> list[int]:
    """To the goal with so many rests on the way."""
    rests = sorted(np.random.default_rng(seed).integers(0, 4, pauses).tolist())
    return sorted([0, 1, 2, 3, 4, *rests])


class Recorded:
    """Experts, and how often they were read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[Trajectory]:
        self.read += 1
        return iter([episode(way(seed, seed % 5), seed, "expert", steps_paid=1) for seed in range(40)])


def program(part: str, done: str = "frame[0, 0, 0] == 4") -> RewardProgram:
    code = f"def progress(frame, initial):\n    return 1.0 if {done} else float({part})\n"
    return RewardProgram(subtasks=(SubTask(name="go", code=code),))


def failed(checks: Sequence[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_what_experts_do_says_whether_a_policy_is_paid_for_nothing() -> None:
    experts = Recorded()
    gate = FilmGate({Evidence.EXPERTS: experts}, VerifyConfig(min_experts=2))
    idle = [episode([0] * 30, seed, steps_paid=1) for seed in range(8)]
    glitter, nearness = program("0.09 * frame[0, 1, 0]"), program("0.2 * frame[0, 0, 0]")
    checks = gate.judge(glitter, idle, OWN)
    assert failed(checks) == ["paid_for_nothing", "for_nothing_policy"]
    assert "policy play earns 90.0% of the return in part" in next(one.message for one in checks if not one.passed)
    some = [*idle[:3], *(episode(way(seed, 2), seed) for seed in range(5))]
    assert failed(gate.judge(glitter, some, OWN)) == ["for_nothing_policy"], "three of eight prove too little"
    assert experts.read == 1
    near = [episode([0, 1, 2, *[3] * 27], seed) for seed in range(8)]
    checks = gate.judge(nearness, near, OWN)
    assert failed(checks) == [], "it is on its way"
    (own,) = (check for check in checks if check.name == "paid_for_nothing")
    assert own.message.startswith("policy play earns 60.0% of the return in part")
    assert failed(FilmGate({}, VerifyConfig(min_experts=2)).judge(glitter, idle, OWN)) == [], (
        "without experts nobody can say"
    )


def test_what_a_policy_undoes_by_moving_on_did_not_last_and_what_experts_undo_is_no_news() -> None:
    gate = FilmGate({Evidence.EXPERTS: Recorded()}, VerifyConfig(min_experts=2, max_early=1.0))
    back = [episode([0, 1, 2, 3, 2, 1, 0], seed) for seed in range(8)]
    checks = gate.judge(program("0", done="frame[0, 0, 0] >= 3"), back, OWN)
    assert failed(checks) == ["completed_unsolved", "lasting", "only_solved_policy"]
    place = program("0", done="frame[0, 0, 0] == 2")
    assert "lasting" not in failed(gate.judge(place, back, OWN)), "the experts walk over that place as well"


@pytest.fixture(scope="module")
def lava() -> dict[Evidence, list[Trajectory]]:
    """Episodes of LavaGapS7: experts, random play, and a policy that walks straight ahead, mostly into the lava."""
    task = get_task("LavaGapS7")
    with made(task, 0) as env:
        ahead = [_ahead(env, seed) for seed in range(8)]
    return {
        Evidence.EXPERTS: [rollout(task, seed, "expert") for seed in range(20)],
        Evidence.RANDOMS: [rollout(task, 100 + seed, "random", 30) for seed in range(20)],
        Evidence.POLICY: ahead,
    }


def _ahead(env: Any, seed: int) -> Trajectory:
    env.reset(seed=seed)
    frames, over = [env.render()], False
    while not over and len(frames) < 10:
        over = env.step(env.unwrapped.actions.forward)[2]
        frames.append(env.render())
    taken = np.full(len(frames) - 1, 2)
    return Trajectory(np.stack(frames), taken, np.zeros(len(taken)), over, not over, False, seed, "policy")


def test_a_wrong_feature_with_a_high_cap_is_rejected_and_caught(lava: dict[Evidence, list[Trajectory]]) -> None:
    *experts_and_randoms, film = lava.items()
    report = verify(CAPPED, dict(experts_and_randoms), VerifyConfig(min_experts=2, min_randoms=20))
    assert [check.name for check in report.failed] == ["degrees_expert"]
    gate = FilmGate({Evidence.EXPERTS: lava[Evidence.EXPERTS]}, VerifyConfig(min_experts=2))
    assert failed(gate.judge(CAPPED, film[1], OWN)) == ["paid_for_nothing", "for_nothing_policy"]
