"""A source whose pay gives way to the environment's own reward."""

import numpy as np
import pytest

from carl.rewards.source import Need, Seen
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
