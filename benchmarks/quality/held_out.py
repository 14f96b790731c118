"""Episodes with the oracle's events, on seeds that no run uses: experts, random play and half-trained play."""

from collections.abc import Iterator

from carl.episodes.kinds import Mixed
from carl.episodes.play import attempt, made
from carl.episodes.trajectory import Trajectory
from carl.seeding import Role, seeds_of
from carl.task import Environment, Task

SEED = 20_261_128
"""Of all held-out episodes; runs have small seeds."""

COUNTS = {"expert": 80, "random": 60, "mixed": 60}
"""Episodes of each kind: 200 a task."""

LONGEST = 250
"""Steps after which an episode that is not an expert's is cut."""

TRIES = 2
"""Seeds for each episode: an expert that fails is passed over."""


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
        episode = _episode(task, env, kind, seed)
        if episode.success or kind != "expert":
            count -= 1
            yield episode


def _episode(task: Task, env: Environment, kind: str, seed: int) -> Trajectory:
    if kind == "expert":
        return attempt(task, env, seed, "expert", with_events=True)
    if kind == "random":
        return attempt(task, env, seed, "random", LONGEST, with_events=True)
    return Mixed(LONGEST, with_events=True)(task, env, seed)
