"""Which frames the embedded model can have learned to read."""

import gymnasium as gym
import minigrid  # noqa: F401  registers its environments
import numpy as np
import pytest

from carl.episodes.play import rollout
from carl.errors import VlmError
from carl.nano.known import check, strange_tiles
from carl.tasks import get_task


@pytest.mark.parametrize("name", ["Empty-8x8", "DoorKey-8x8", "DoorKey-16x16", "Unlock", "UnlockPickup"])
def test_the_built_in_rooms_are_known(name: str) -> None:
    for frame in rollout(get_task(name), 3, "random", 40).frames:
        check(name, frame)


def test_a_picture_of_another_size_is_refused_with_what_to_do() -> None:
    with pytest.raises(VlmError, match=r"cannot be shown 'Lake'.*256x256.*vlm\.base_url.*vlm\.recording"):
        check("Lake", np.zeros((256, 256, 3), np.uint8))


def test_strange_tiles_are_counted_and_refused_with_what_to_do() -> None:
    said = r"cannot read 'Grey'.*64 of the 64 tiles.*leave synthesis\.proposers at its default.*vlm\.base_url"
    with pytest.raises(VlmError, match=said):
        check("Grey", np.full((64, 64, 3), 200, np.uint8))
    lava = gym.make("MiniGrid-LavaGapS7-v0", render_mode="rgb_array", tile_size=8, highlight=False)
    lava.reset(seed=0)
    assert 0 < strange_tiles(np.asarray(lava.render())) < 10
