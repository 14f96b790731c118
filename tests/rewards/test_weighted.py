"""A source whose pay gives way to the environment's own reward."""

import numpy as np
import pytest

from carl.program import RewardProgram, SubTask
from carl.provenance import Provenance
from carl.rewards.program import ProgramReward
from carl.rewards.source import Need, Seen, provenance_of
from carl.rewards.weighted import Weighted
from tests.fakes.corridor import Furthest


@pytest.mark.parametrize(("weight", "paid"), [(1.0, 0.5), (0.5, 1.25), (0.0, 2.0)])
def test_it_shows_the_same_and_pays_by_its_weight(weight: float, paid: float) -> None:
    source = Weighted(Furthest(), weight)
    assert (source.needs, source.shows) == (frozenset({Need.FRAMES, Need.ENV_REWARD}), Furthest.shows)
    session = source.open(1)
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    for position, began, earned, shown in ((0, True, 0.0, 0.0), (2, False, paid, 0.5)):
        frames[0, 0, 0, 0] = position
        reward = np.array([0.0 if began else 2.0])
        judged = session.look(Seen(np.array([0]), np.array([began]), frames, env_reward=reward))
        assert (judged.reward[0], judged.shown[0, 0]) == (earned, shown)
    session.close()


def test_it_comes_from_where_its_source_does() -> None:
    code = "def progress(frame, initial):\n    return 0.0\n"
    program = RewardProgram(subtasks=(SubTask(name="a", code=code),), provenance=Provenance(origin="a model"))
    known = provenance_of(Weighted(ProgramReward(program), 0.5))
    assert known is not None
    assert known["origin"] == "a model"
    assert provenance_of(Weighted(Furthest(), 0.5)) is None
