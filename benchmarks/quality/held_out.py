"""Episodes with the oracle's events, on seeds that no run uses: experts, random play and half-trained play."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from carl.episodes.play import Astray, acting, at_random, attempt, filmed, made
from carl.episodes.trajectory import Trajectory
from carl.seeding import Role, seeds_of
from carl.task import Actor, Environment, Task

SEED = 20_261_128
"""Of all held-out episodes; runs have small seeds."""

COUNTS = {"expert": 80, "random": 60, "mixed": 60}
"""Episodes of each kind: 200 a task."""

LONGEST = 250
"""Steps after which an episode that is not an expert's is cut."""

SHARES = (0.1, 0.7)
"""Between these lies the share of random actions in an episode of half-trained play."""

TRIES = 2
"""Seeds for each episode: an expert that fails, or that knows no way on at once, is passed over."""


def held_out(task: Task, counts: dict[str, int] | None = None) -> dict[str, list[Trajectory]]:
    """Episodes of ``task`` by kind, with oracle events; experts solve it.

    A half-trained episode ends unsolved where the expert knows no way on. Raises TaskError.
    """
    with made(task, 0) as env:
        return {kind: [*_played(task, env, kind, count)] for kind, count in (counts or COUNTS).items()}


def _played(task: Task, env: Environment, kind: str, count: int) -> Iterator[Trajectory]:
    for seed in seeds_of(SEED, Role.EVALUATION, TRIES * count, list(COUNTS).index(kind)):
        if not count:
            return
        try:
            episode = _episode(task, env, kind, seed)
        except Astray:
            continue
        if episode.success or kind != "expert":
            count -= 1
            yield episode


def _episode(task: Task, env: Environment, kind: str, seed: int) -> Trajectory:
    if kind == "expert":
        return attempt(task, env, seed, "expert", with_events=True)
    if kind == "random":
        return attempt(task, env, seed, "random", LONGEST, with_events=True)
    return filmed(task, env, seed, partial(_half_trained, task, seed), kind, LONGEST, with_events=True)


def _half_trained(task: Task, seed: int, env: Environment) -> Actor:
    """The expert, with a share of random actions mixed in that is drawn for each episode."""
    expert, chance, rng = acting(task, env), at_random(env, seed), np.random.default_rng(seed)
    share = rng.uniform(*SHARES)

    def act(observation: Any) -> Any:
        try:
            action = expert(observation)
        except Exception as error:  # an expert may never have thought to come here
            raise Astray(f"task {task.name!r}: its expert knows no way on in the episode of seed {seed}") from error
        return chance(observation) if rng.random() < share else action

    return act
