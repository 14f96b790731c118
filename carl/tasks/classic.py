"""Classic control: MountainCarContinuous, a continuous task for SAC."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carl.task import Actor, Environment, Frame, Task

FRAME_HEIGHT, FRAME_WIDTH = 64, 96
"""Pixels; gymnasium draws 400 x 600, of which a program needs no more than this."""


def make_mountain_car() -> Environment:
    """MountainCarContinuous-v0 (999 steps), drawn off screen."""
    for driver in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
        os.environ.setdefault(driver, "dummy")  # pygame draws to memory; it would look for devices and complain
    import gymnasium as gym

    return gym.make("MountainCarContinuous-v0", render_mode="rgb_array", disable_env_checker=True)


def pump(env: Environment) -> Actor:  # noqa: ARG001  the observation is enough
    """The scripted expert: push the way the car rolls, so that every swing is higher than the last."""

    def act(observation: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.array([1.0 if observation[1] >= 0 else -1.0], dtype=np.float32)

    return act


def small_frame(env: Environment) -> Frame:
    """``uint8[64, 96, 3]``: the rendered picture, shrunk by averaging areas."""
    import cv2

    picture = np.asarray(env.render())
    return np.asarray(cv2.resize(picture, (FRAME_WIDTH, FRAME_HEIGHT), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def terminated_only(
    reward: float,  # noqa: ARG001
    terminated: bool,
    truncated: bool,  # noqa: ARG001
    info: Mapping[str, Any],  # noqa: ARG001
) -> bool:
    """The car is at the flag: the only way this environment terminates."""
    return terminated


TASKS = (
    Task(
        name="MountainCarContinuous",
        description="A car in a valley is too weak to climb straight up. Get it to the flag on the right hill.",
        make=make_mountain_car,
        expert=pump,
        success=terminated_only,
        camera=small_frame,
        # Twice an expert's 106 steps leave random play time to roll, and stay far from the 999 of an episode.
        # A car that has climbed the left hill rolls down again in every expert episode. Random play rolls up and down a
        # hill too: it earns 12 % of the return of the program in tests/, and 22 % of a strong model's.
        defaults={
            "collect.random_cut": 2.0,
            "train.env_steps": 100_000,
            "train.algorithm": "sac",
            "verify.max_undone_by_experts": 1.0,
            "verify.max_part": 0.25,
        },
    ),
)
