"""Which frames the embedded model can have learned to read."""

import gymnasium as gym
import minigrid  # noqa: F401  registers its environments
import numpy as np
import pytest

from carl.collect import rollout
from carl.nano.known import unknown
from carl.task import get_task


@pytest.mark.parametrize("name", ["Empty-8x8", "DoorKey-8x8", "DoorKey-16x16", "Unlock", "UnlockPickup"])
def test_the_built_in_rooms_are_known(name: str) -> None:
    frames = rollout(get_task(name), 3, "random", 40).frames
    assert {unknown(frame) for frame in frames} == {""}


def test_other_sizes_and_other_pictures_are_not() -> None:
    assert "400x600" in unknown(np.zeros((400, 600, 3), np.uint8))
    assert unknown(np.full((64, 64, 3), 200, np.uint8)) == "64 of 64 tiles of a frame are none that it was trained on"
    lava = gym.make("MiniGrid-LavaGapS7-v0", render_mode="rgb_array", tile_size=8, highlight=False)
    lava.reset(seed=0)
    assert "of 49 tiles" in unknown(np.asarray(lava.render()))
