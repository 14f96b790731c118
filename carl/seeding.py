"""Seeds are spawned (numpy.random.SeedSequence), not added: with seed + index neighbouring runs share episodes."""

import itertools
from collections.abc import Iterator
from enum import IntEnum

import numpy as np


class Role(IntEnum):
    """The use of a seed. Two roles never share one."""

    EXPERT = 0
    RANDOM = 1
    HELD_OUT = 2
    TRAINING = 3
    CURVE = 4
    SELECTION = 5
    EVALUATION = 6
    SYNTHESIS = 7
    LEARNER = 8
    DEMONSTRATION = 9
    RESTING = 10
    MIXED = 11
    WATCH = 12


def spawn(run_seed: int, role: Role, *path: int) -> np.random.SeedSequence:
    """The seed sequence of (run, role, path...); a path is for example runner and slot."""
    return np.random.SeedSequence(entropy=run_seed, spawn_key=(int(role), *path))


def seed_of(run_seed: int, role: Role, *path: int) -> int:
    """One integer in [0, 2**31), for libraries that take a number."""
    return int(spawn(run_seed, role, *path).generate_state(1)[0] >> 1)


def seeds_of(run_seed: int, role: Role, count: int, *path: int) -> list[int]:
    """``count`` integers in [0, 2**31), distinct in practice; a larger count has the same beginning."""
    return [seed_of(run_seed, role, *path, index) for index in range(count)]


def seeds_after(run_seed: int, role: Role, count: int, *path: int) -> Iterator[int]:
    """The integers that follow the first ``count`` of ``seeds_of``, without end."""
    return (seed_of(run_seed, role, *path, index) for index in itertools.count(count))
