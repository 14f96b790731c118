"""What the teacher says follows from the scene, reads back, and its programs judge the scenes they are about."""

from collections.abc import Callable

import numpy as np
import pytest

from carl.nano.answers import NAME_REQUEST, decomposition, describe, program_answer, subgoal_name, write_request
from carl.nano.scenes import FAMILIES, Scene, SubGoal, draw
from carl.sandbox.policy import violations
from carl.synthesis.author import NAME_LINE, WRITE_LINE
from carl.synthesis.parse import parse_code, parse_plan

KEY, DOOR = SubGoal("pick up", "key", "door"), SubGoal("open", "door", "door")


def scene(*colours: str, crowded: bool = False) -> Scene:
    frames = tuple(np.zeros((40, 40, 3), np.uint8) for _ in range(2 * len(colours)))
    return Scene("unlock", frames, (KEY, DOOR), {"door": colours}, crowded)


def test_a_colour_is_named_only_if_it_is_the_same_in_every_episode() -> None:
    assert subgoal_name(scene("red", "red"), KEY) == "pick up the red key"
    assert subgoal_name(scene("red", "grey"), KEY) == "pick up the key"


def test_every_episode_is_described() -> None:
    assert describe(scene("red", "grey")) == "Scene: a red key, a red door; a grey key, a grey door."
    assert describe(scene("blue", crowded=True)) == "Scene: a blue key, a blue door among other objects."


def test_requests_are_those_of_synthesis() -> None:
    assert NAME_REQUEST == NAME_LINE
    assert write_request(2, 3, "open the door") == WRITE_LINE.format(index=2, count=3, name="open the door")


@pytest.mark.parametrize("family", list(FAMILIES))
def test_answers_read_back(family: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        drawn = draw(rng, family=family)
        names = tuple(step.name for step in parse_plan(decomposition(drawn)).steps)
        assert names == tuple(subgoal_name(drawn, subgoal) for subgoal in drawn.subgoals)
        for subgoal in drawn.subgoals:
            assert not violations(parse_code(program_answer(drawn, subgoal)))


def judge(source: str) -> Callable[[np.ndarray, np.ndarray], float]:
    namespace: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {}
    exec(source, namespace)
    return namespace["progress"]


def test_the_programs_taught_for_built_in_layouts_are_right_in_nearly_all_scenes() -> None:
    rng = np.random.default_rng(3)
    right = []
    while len(right) < 600:
        drawn = draw(rng)
        if drawn.family not in ("goal", "doorkey", "unlock", "unlockpickup"):
            continue
        for subgoal in drawn.subgoals:
            progress = judge(parse_code(program_answer(drawn, subgoal)))
            for initial, goal in zip(drawn.frames[::2], drawn.frames[1::2], strict=True):
                begun = subgoal.verb != "put down" and progress(initial, initial) >= 1.0
                right.append(progress(goal, initial) == 1.0 and not begun)
    assert np.mean(right) > 0.95
