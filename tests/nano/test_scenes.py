"""Scenes look like MiniGrid, follow from their seed, and need what their sub-goals say."""

import gymnasium as gym
import minigrid  # noqa: F401  registers the environments
import numpy as np
import pytest

from carl.nano.batches import scenes_of
from carl.nano.model import CANVAS
from carl.nano.painting import State, Thing, paint
from carl.nano.scenes import COLOURS, FAMILIES, Scene, draw
from carl.seeding import Role


def painted(world: gym.Env) -> np.ndarray:
    """The state of a MiniGrid room, painted by us."""
    things: dict[tuple[int, int], Thing] = {}
    walls = []
    for index, thing in enumerate(world.grid.grid):
        cell = (index % world.width, index // world.width)
        if thing is None:
            continue
        if thing.type == "wall":
            walls.append(cell)
            continue
        door = (
            "open" if getattr(thing, "is_open", False) else "locked" if getattr(thing, "is_locked", False) else "closed"
        )
        things[cell] = (thing.type, thing.color, door if thing.type == "door" else "")
    agent = (int(world.agent_pos[0]), int(world.agent_pos[1]))
    return paint((world.width, world.height), walls, State(things, agent, int(world.agent_dir)))


@pytest.mark.parametrize("name", ["Empty-8x8", "DoorKey-5x5", "DoorKey-16x16", "Unlock", "UnlockPickup"])
def test_painting_is_what_minigrid_renders(name: str) -> None:
    env = gym.make(f"MiniGrid-{name}-v0", render_mode="rgb_array", highlight=False, tile_size=8)
    for seed in range(5):
        env.reset(seed=seed)
        assert (painted(env.unwrapped) == env.render()).all()


@pytest.mark.parametrize("family", list(FAMILIES))
def test_scenes_fit_the_canvas_and_change(family: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        scene = draw(rng, pairs=2, family=family)
        assert len(scene.frames) == 4
        assert len({frame.shape for frame in scene.frames}) == 1
        assert max(scene.frames[0].shape[:2]) <= CANVAS
        assert all(len(colours) == 2 and set(colours) <= set(COLOURS) for colours in scene.colours.values())
        for initial, goal in zip(scene.frames[::2], scene.frames[1::2], strict=True):
            assert initial.dtype == np.uint8
            assert (initial != goal).any()


def test_a_seed_gives_the_same_scenes_and_roles_share_none() -> None:
    def pictures(role: Role, step: int) -> list[bytes]:
        return [b"".join(frame.tobytes() for frame in scene.frames) for scene in scenes_of(0, role, step, 8)]

    assert pictures(Role.TRAINING, 3) == pictures(Role.TRAINING, 3)
    assert pictures(Role.TRAINING, 3) != pictures(Role.TRAINING, 4)
    assert not set(pictures(Role.TRAINING, 3)) & set(pictures(Role.HELD_OUT, 3))


def test_every_family_and_the_hard_colours_are_drawn() -> None:
    rng = np.random.default_rng(1)
    drawn: list[Scene] = [draw(rng) for _ in range(400)]
    assert {scene.family.split("/")[0] for scene in drawn} == set(FAMILIES)
    doors = [colour for scene in drawn for colour in scene.colours.get("door", ())]
    assert set(doors) == set(COLOURS)
    assert {scene.frames[0].shape[:2] for scene in drawn} >= {(40, 40), (48, 48), (64, 64), (128, 128), (48, 88)}
