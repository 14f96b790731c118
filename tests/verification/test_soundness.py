"""Episodes that cannot judge a program are blamed instead of one, by their seeds, with what to do."""

from dataclasses import replace

import numpy as np
import pytest

from carl.config import VerifyConfig
from carl.episodes.trajectory import Trajectory
from carl.statistics import exact_bound, trials_to_exclude
from carl.verification import Check, Evidence
from carl.verification.seen import Seen
from carl.verification.soundness import _elsewhere, sound
from tests.verification.episodes import experts, kinds, randoms

EXPERTS, RANDOMS = experts(), randoms()


def judged(shown: list[Trajectory], played: list[Trajectory] | None = None, **limits: float) -> list[Check]:
    return sound(kinds(shown, RANDOMS if played is None else played), VerifyConfig(**({"min_experts": 2} | limits)))


def blamed(*shown: list[Trajectory], **limits: float) -> Check:
    (check,) = judged(*shown, **limits)
    assert not check.passed
    return check


def test_sound_episodes_pass_and_what_they_leave_open_is_said() -> None:
    (check,) = judged(EXPERTS)
    assert check.passed
    assert check.figures["excluded"] == pytest.approx(exact_bound(0, 8))
    assert (check.figures["experts"], check.figures["distinct"]) == (8, 3), "they hesitate in three ways"
    assert "bound" not in check.figures or check.figures["comparable"]
    assert "cannot exclude a fault in 31.2 % of the seeds (8 expert episodes), 4.9 %" in check.message


@pytest.mark.parametrize("share", [0.5, 0.05, 0.012, 0.001])
def test_as_many_episodes_as_a_bound_asks_for_and_no_more(share: float) -> None:
    trials = trials_to_exclude(share)
    assert exact_bound(0, trials) <= share < exact_bound(0, trials - 1)


def test_experts_that_fail_are_named() -> None:
    failing = [replace(one, success=False) if one.seed in (2, 5) else one for one in EXPERTS]
    check = blamed(failing)
    assert "fails in 2 of 8 episodes, of seeds 2, 5," in check.message
    assert "bound" not in check.figures, "that of contradictions is not of this share"


def test_too_few_experts_ask_for_more() -> None:
    assert "collect some more" in blamed(EXPERTS[:1]).message
    assert "there are 0 expert episodes" in blamed([]).message
    assert judged(EXPERTS[:2])[0].passed
    assert "fewer than 10" in blamed(EXPERTS, min_experts=VerifyConfig().min_experts).message


def test_a_goal_frame_of_another_task() -> None:
    goal = np.full_like(EXPERTS[3].frames[:1], (180, 120, 200))
    frames = np.concatenate([EXPERTS[3].frames[:-1], goal])
    check = blamed([*EXPERTS[:3], replace(EXPERTS[3], frames=frames), *EXPERTS[4:]])
    assert "no colour in common" in check.message
    assert "of seed 3:" in check.message.replace(", has", ":")
    assert check.frames[0].step == len(EXPERTS[3])


def test_demonstrations_of_another_task() -> None:
    """A thing of a colour that the task has as well lies where the task has none."""
    other = [replace(one, frames=one.frames.copy()) for one in EXPERTS]
    for one in other:
        one.frames[:, -1, -3:] = 200
    scenes = [replace(one, frames=np.maximum(one.frames, np.uint8(one.seed % 16))) for one in RANDOMS]
    message = blamed(other, scenes).message
    assert "the initial frames of the 8 expert episodes and of the 60 of random play have nothing in common" in message
    assert "each shows more of the colour (208, 208, 208) than any of those" in message
    assert "carl record" in message
    assert judged(other[:1] * 8, scenes)[0].passed, "one start, however often, may be chance"
    same = [replace(one, frames=np.maximum(one.frames, np.uint8(16 + one.seed))) for one in EXPERTS]
    assert judged(same, scenes)[0].passed, "other frames, of the same colours"


def test_more_demonstrations_of_another_task_than_draws_can_be_counted_as_floats() -> None:
    turned = replace(EXPERTS[0], frames=np.maximum(EXPERTS[0].frames, np.uint8(200)))
    ours, theirs = Seen.of(Evidence.EXPERTS, turned), Seen.of(Evidence.RANDOMS, RANDOMS[0])
    several = ([replace(one, seed=seed) for seed in range(600)] for one in (ours, theirs))
    (finding,) = _elsewhere(*several)
    assert "of the 600 expert episodes and of the 600 of random play have nothing in common" in finding.message


def test_demonstrations_that_begin_otherwise_than_a_task_that_always_begins_alike() -> None:
    turned = [replace(one, frames=one.frames[:, ::-1, ::-1]) for one in EXPERTS]
    assert "those are all alike: the experts are of another task" in blamed(turned).message


def test_a_goal_of_one_colour_everywhere_is_of_the_task() -> None:
    shown = [
        replace(one, frames=np.concatenate([one.frames[:-1], np.full_like(one.frames[:1], (180, 120, 200))]))
        for one in EXPERTS
    ]
    assert judged(shown)[0].passed


def test_frames_of_another_size() -> None:
    other = replace(RANDOMS[7], frames=RANDOMS[7].frames[:, :4])
    message = blamed(EXPERTS, [*RANDOMS[:7], other, *RANDOMS[8:]]).message
    assert "of seed 1007, are [4, 26, 3] and not [8, 26, 3]" in message


def test_frames_that_are_all_alike_show_no_success() -> None:
    blind = [replace(one, frames=np.repeat(one.frames[:1], len(one) + 1, axis=0)) for one in EXPERTS]
    checks = judged(blind, [])
    assert all("success cannot be seen in a frame" in check.message for check in checks)


def unsolved(one: Trajectory) -> Trajectory:
    """The same episode, in which the task goes on: one step more, back to the frame before."""
    frames = np.concatenate([one.frames, one.frames[-2:-1]])
    return replace(
        one, frames=frames, actions=np.append(one.actions, 0), success=False, seed=one.seed + 500, role="cut"
    )


def test_episodes_that_contradict_each_other() -> None:
    check = blamed(EXPERTS, [unsolved(EXPERTS[4]), *RANDOMS])
    assert "success cannot be seen in a frame" in check.message
    assert "of seeds 0, 1, 2" in check.message
    assert [(one.source, one.seed) for one in check.frames[:2]] == [("expert", 0), ("cut", 504)]


def test_a_few_contradictions_are_told_and_not_refused_where_the_task_says_so() -> None:
    (check,) = judged(EXPERTS, [unsolved(EXPERTS[4]), *RANDOMS], max_contradicted=1.0)
    assert check.passed
    assert "this is tolerated: success cannot be seen in a frame" in check.message
    assert check.figures["contradicted"] > 0.9


def test_one_contradiction_among_many_is_not_conclusive() -> None:
    """Each seed begins in a scene of its own, and one expert of twelve is contradicted."""
    scenes = [replace(one, frames=np.maximum(one.frames, np.uint8(30 + one.seed))) for one in experts(12)]
    others = [replace(one, frames=one.frames[:-1], success=False, role="cut") for one in scenes[1:]]
    (check,) = judged(scenes, [unsolved(scenes[0]), *others])
    assert check.passed
    assert check.figures["contradicted"] == pytest.approx(1 / 12)
    assert check.figures["at_least"] < 0.05 < 1 / 12 < check.figures["bound"]
    assert "of seed 0," in check.message


def test_what_has_to_last_is_no_contradiction() -> None:
    """An expert that rests at the goal for three frames, and another episode that only passes by."""
    resting = [
        replace(
            one, frames=np.concatenate([one.frames, *[one.frames[-1:]] * 2]), actions=np.append(one.actions, [0, 0])
        )
        for one in EXPERTS
    ]
    passing = [replace(unsolved(one), role="random") for one in EXPERTS]
    assert judged(resting, passing)[0].passed
    assert not judged(EXPERTS, passing)[0].passed


def test_kinds_beside_the_required_ones_are_looked_at_too() -> None:
    (check,) = sound(kinds(EXPERTS, []) | {Evidence.CUT: [unsolved(EXPERTS[4])]}, VerifyConfig(min_experts=2))
    assert not check.passed
    assert check.frames[1].source == "cut"
