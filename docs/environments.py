"""Tasks in other packages' environments, as environments.md shows them; here, ``carl run environments:TAXI``."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import cv2
import gymnasium as gym
import numpy as np

from carl.cameras import Shrunk
from carl.task import Actor, Environment, Frame, Task

os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # pygame would look for a sound card, and complain


def planner(env: Environment) -> Actor:
    """An expert for gymnasium's toy text: value iteration on the environment's own table of transitions."""
    table = env.unwrapped.P
    shape = len(table), len(table[0])
    onwards, earned = np.zeros((*shape, len(table))), np.zeros(shape)
    for state, action in np.ndindex(shape):
        for probability, after, reward, terminated in table[state][action]:
            earned[state, action] += probability * reward
            onwards[state, action, after] += 0.99 * probability * (not terminated)
    values, before = np.zeros(len(table)), np.full(len(table), np.inf)
    while np.abs(values - before).max() > 1e-9:
        before, values = values, (earned + onwards @ values).max(axis=1)
    best = (earned + onwards @ values).argmax(axis=1)
    return lambda observation: int(best[env.unwrapped.s])


FROZEN_LAKE = Task(
    name="FrozenLake",
    description="Cross the ice to the gift. Do not fall into a hole.",
    make=partial(gym.make, "FrozenLake-v1", is_slippery=False, render_mode="rgb_array"),
    expert=planner,
    camera=Shrunk(64),
)

SLIPPERY_LAKE = Task(
    name="SlipperyLake",
    description="Cross the ice to the gift. Do not fall into a hole. The ice is slippery.",
    make=partial(gym.make, "FrozenLake-v1", is_slippery=True, render_mode="rgb_array"),
    expert=planner,
    camera=Shrunk(64),
)


def arrived(reward: float, terminated: bool, truncated: bool, info: Mapping[str, Any]) -> bool:
    """The only way in which the environment terminates."""
    return terminated


CLIFF_WALKING = Task(
    name="CliffWalking",
    description="Walk around the cliff to the cookie at the lower right. A step off the cliff leads back to the start.",
    make=partial(gym.make, "CliffWalking-v1", max_episode_steps=100, render_mode="rgb_array"),
    expert=planner,
    success=arrived,
    camera=Shrunk(240),
)

TAXI = Task(
    name="Taxi",
    description="Drive the taxi to the passenger, let the passenger get in, and drop the passenger off at the hotel.",
    make=partial(gym.make, "Taxi-v3", render_mode="rgb_array"),
    expert=planner,
    camera=Shrunk(275),
)


def pilot(env: Environment) -> Actor:
    """Gymnasium's own heuristic for its lander."""
    from gymnasium.envs.box2d.lunar_lander import heuristic

    return lambda observation: heuristic(env, observation)


class BetweenTheFlags(gym.Wrapper):
    """Adds to ``info`` whether the lander rests between the flags: the environment pays 100 for a rest anywhere."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        landed = bool(reward == 100 and abs(observation[0]) < 0.2)
        return observation, reward, terminated, truncated, {**info, "landed": landed}


def make_lander() -> Environment:
    return BetweenTheFlags(gym.make("LunarLander-v3", render_mode="rgb_array"))


def landed(reward: float, terminated: bool, truncated: bool, info: Mapping[str, Any]) -> bool:
    return info["landed"]


LUNAR_LANDER = Task(
    name="LunarLander",
    description="Land the purple spacecraft softly on the ground between the two yellow flags, and come to rest.",
    make=make_lander,
    expert=pilot,
    success=landed,
    camera=Shrunk(150),
    defaults={"collect.random_cut": 1.0},
)


SCALE, HALF = 213, 64  # pixels per metre, and half a frame


def drawn_arm(env: Environment) -> Frame:
    """A camera of one's own, ``uint8[128, 128, 3]``: draws the arm from the state, and needs no graphics driver."""
    positions = [env.unwrapped.data.body(name).xpos[:2] for name in ("body0", "body1", "fingertip", "target")]
    root, elbow, tip, target = [(round(HALF + SCALE * x), round(HALF - SCALE * y)) for x, y in positions]
    frame = np.full((2 * HALF, 2 * HALF, 3), 230, np.uint8)
    cv2.circle(frame, target, 4, (220, 40, 40), cv2.FILLED)
    cv2.line(frame, root, elbow, (0, 100, 150), 3)
    cv2.line(frame, elbow, tip, (0, 100, 150), 3)
    cv2.circle(frame, tip, 3, (0, 180, 60), cv2.FILLED)
    return frame


def reach(env: Environment) -> Actor:
    """Inverse kinematics for the two links, and a PD controller that turns the joints there."""
    data, near, far = env.unwrapped.data, 0.1, 0.11

    def act(observation: np.ndarray) -> np.ndarray:
        x, y = data.qpos[2:]
        bend = np.arccos(np.clip((x**2 + y**2 - near**2 - far**2) / (2 * near * far), -1, 1))
        turn = np.arctan2(y, x) - np.arctan2(far * np.sin(bend), near + far * np.cos(bend))
        missing = np.array([turn, bend]) - data.qpos[:2]
        missing[0] = (missing[0] + np.pi) % (2 * np.pi) - np.pi
        return np.clip(missing - 0.13 * data.qvel[:2], -1, 1).astype(np.float32)

    return act


def at_the_target(reward: float, terminated: bool, truncated: bool, info: Mapping[str, Any]) -> bool:
    """The fingertip is less than 2 cm from the target. No episode terminates, and no reward is positive."""
    return info["reward_dist"] > -0.02


REACHER = Task(
    name="Reacher",
    description="Bring the green fingertip of the arm to the red target.",
    make=partial(gym.make, "Reacher-v5"),
    expert=reach,
    success=at_the_target,
    camera=drawn_arm,
    # In 50 steps random play sweeps the fingertip over the target in a tenth of the episodes.
    defaults={"collect.random_cut": 0.5, "train.algorithm": "sac"},
)


class OneCrossing(gym.Wrapper):
    """Ends the episode, and pays, when the chicken is at the upper kerb.

    The game pays one step later, and the frame of that step shows the next chicken at the lower kerb already.
    """

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, _, truncated, info = self.env.step(action)
        arrived = bool(self.unwrapped.ale.getRAM()[14] >= 170)
        return observation, float(arrived), arrived, truncated, info


def make_freeway() -> Environment:
    import ale_py

    gym.register_envs(ale_py)
    return OneCrossing(gym.make("ALE/Freeway-v5", obs_type="ram", render_mode="rgb_array", max_episode_steps=200))


def upwards(env: Environment) -> Actor:
    return lambda observation: 1


FREEWAY = Task(
    name="Freeway",
    description="Bring the yellow chicken in the left half of the road across it, to the top, through the traffic.",
    make=make_freeway,
    expert=upwards,
    defaults={"collect.random_cut": 1.0},
)
