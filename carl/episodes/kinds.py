"""Episodes of further kinds: a resting agent, half-trained play, and expert play that is cut off."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from carl.episodes.actions import cast
from carl.episodes.missing import Unobtainable
from carl.episodes.play import Astray, acting, at_random, filmed
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import TaskError
from carl.task import Actor, Environment, Task

SHARES = (0.1, 0.6)
"""Between these lies the share of random actions in half-trained play, drawn anew for each episode."""

LAST_STEPS = 3
"""A near miss is cut off so many steps before an event, or fewer."""

SELDOM, STEADY, FEW = 0.15, 0.9, 3
"""What experts do seldom, or as often in this share of their episodes and at most so many times in each, makes an event
rather than moves the agent. In MiniGrid that is picking up, dropping and toggling."""

LEAP = 3.0
"""Where actions do not tell, an event changes so many times as many pixels as the median step of its episode."""

CONTINUED = 12
"""Steps that are played on where expert play is cut off."""


@dataclass(frozen=True)
class Resting:
    """One and the same action throughout: each of a Discrete space in turn over ``seeds``, zeros of a Box.

    Attributes:
        seeds: of all episodes, in their order.
        steps: after which an episode is cut.
    """

    seeds: Sequence[int]
    steps: int

    def __call__(self, task: Task, env: Environment, seed: int) -> Trajectory:
        """Play the episode of ``seed``; raises TaskError."""
        action, who = at_rest(env.action_space, self.seeds.index(seed)), f"task {task.name!r}: a resting agent"
        return filmed(task, env, seed, lambda _: lambda _: cast(env.action_space, action, who), "resting", self.steps)


def at_rest(space: Any, turn: int) -> Any:
    """The action that a resting agent repeats in its episode number ``turn``; raises Unobtainable for a space that is
    not of numbers."""
    if isinstance(space, spaces.Dict):
        return {key: at_rest(part, turn) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(at_rest(part, turn) for part in space)
    if isinstance(space, spaces.Discrete):
        return int(space.start) + turn % int(space.n)
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
    if isinstance(space, spaces.MultiBinary | spaces.MultiDiscrete):
        return np.zeros(space.shape, space.dtype) + getattr(space, "start", np.zeros((), space.dtype))
    raise Unobtainable(f"there is no action of {space} to rest with")


@dataclass(frozen=True)
class Mixed:
    """Half-trained play: the expert, with a share of random actions mixed in.

    An expert that is led astray (a script that ends, raises, or finds no way on) ends the episode there, unsolved; the
    first action is then a random one.

    Attributes:
        steps: after which an episode is cut.
        with_events: record the task's oracle events as well, for measuring only.
    """

    steps: int
    with_events: bool = False

    def __call__(self, task: Task, env: Environment, seed: int) -> Trajectory:
        """Play the episode of ``seed``; raises TaskError, Unobtainable if the task has no expert."""
        if task.expert is None:
            raise Unobtainable("the task brings demonstrations and no expert that could be led astray")
        player = partial(_half_trained, task, seed)
        return filmed(task, env, seed, player, "mixed", self.steps, self.with_events)


def strays(seed: int) -> Iterator[bool]:
    """Whether each step in turn of the half-trained episode of ``seed`` is a random one, and not the expert's.

    It is drawn from the seed alone, so that it need not be recorded.
    """
    rng = np.random.default_rng(seed)
    share = rng.uniform(*SHARES)
    while True:
        yield bool(rng.random() < share)


def _half_trained(task: Task, seed: int, env: Environment) -> Actor:
    expert, chance = acting(task, env), at_random(env, seed)
    turns = zip(count(), strays(seed), strict=False)

    def act(observation: Any) -> Any:
        turn, stray = next(turns)
        try:
            action = cast(env.action_space, expert(observation), f"task {task.name!r}: its expert")
        except Exception as error:  # a user's code may raise anything where it never thought to come
            if turn == 0:
                return chance(observation)
            raise Astray(f"task {task.name!r}: its expert knows no way on in the episode of seed {seed}") from error
        return chance(observation) if stray else action

    return act


@dataclass(frozen=True)
class Cut:
    """An expert's recorded actions up to some frame, then ``CONTINUED`` steps of random play or of idle actions.

    Every third is a near miss: cut off one to ``LAST_STEPS`` steps before an event, each of an episode's ``events`` in
    turn. The others are cut off anywhere. In every other one of both only actions that the task calls idle follow, if
    it names some.

    Attributes:
        experts: the recorded episodes.
        seeds: theirs, in their order.
        rare: actions of a Discrete space that make events, as ``rare_actions`` finds them.
    """

    experts: TrajectoryStore
    seeds: Sequence[int]
    rare: frozenset[int] = frozenset()

    def __call__(self, task: Task, env: Environment, seed: int) -> Trajectory:
        """Play the episode of ``seed``; raises TaskError, Unobtainable if its replay does not give the same frames."""
        index = self.seeds.index(seed)
        expert = self.experts[index]
        kept = expert.actions[: cut_at(index, events(expert, self.rare), np.random.default_rng(seed))]
        idle = task.idle if index % 2 else ()
        player = partial(_cut_off, task, seed, kept, idle)
        trajectory = filmed(task, env, seed, player, "cut", len(kept) + CONTINUED)
        if not _same_beginning(trajectory, expert, len(kept)):
            raise Unobtainable(
                f"playing the recorded actions of the expert episode of seed {seed} again does not give its frames: "
                "what happens in the environment does not follow from its seed and the actions"
            )
        return trajectory


def cut_at(index: int, ends: Sequence[int], rng: np.random.Generator) -> int:
    """How many of an expert's steps are played in the episode number ``index``, whose events come at the frames
    ``ends``, the last one at its end."""
    if index % 3 == 0:
        # two of three numbers apart, so that of every event one near miss goes on at random and one idly
        event = ends[len(ends) - 1 - index // 6 % len(ends)]
        return max(0, event - int(rng.integers(1, LAST_STEPS + 1)))
    return int(rng.integers(ends[-1]))


def rare_actions(taken: Sequence[NDArray[Any]]) -> frozenset[int]:
    """The actions of a Discrete space that experts take ``SELDOM``, or steadily a ``FEW`` times in an episode.

    ``taken`` are ``intp[T]`` of each episode. The commonest action is never rare, and none of another space is.
    """
    if not taken or taken[0].ndim != 1 or taken[0].dtype.kind not in "iu":
        return frozenset()
    actions = np.unique(np.concatenate(taken))
    counts = np.array([[np.count_nonzero(each == action) for action in actions] for each in taken])
    share, usual = counts.sum(axis=0) / counts.sum(), np.median(counts, axis=0)
    steady = ((counts == usual).mean(axis=0) >= STEADY) & (usual <= FEW)
    rare = ((share < SELDOM) | steady) & (share < share.max())
    return frozenset(actions[rare].tolist())


def events(expert: Trajectory, rare: frozenset[int]) -> list[int]:
    """The frames of an episode at which something happens other than that the agent moves, in order: those to which a
    ``rare`` action leads, or the picture leaps where no action is rare; and the last one, at which the task is solved.

    Neither needs an oracle; what it finds is a place to look for mistakes, and no verdict.
    """
    last = len(expert)
    if rare:
        found = np.flatnonzero(np.isin(expert.actions, [*rare])) + 1
    else:
        changed = [_changed(expert.frames[step], expert.frames[step + 1]) for step in range(last)]
        found = np.flatnonzero(np.array(changed) > LEAP * np.median(changed)) + 1
    return [*(step for step in found.tolist() if step < last), last]


def _changed(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> int:
    """In how many pixels two frames differ."""
    return int((np.asarray(before) != np.asarray(after)).any(axis=2).sum())


def _cut_off(task: Task, seed: int, kept: NDArray[Any], idle: Sequence[int], env: Environment) -> Actor:
    """Plays ``kept``, then ``idle`` actions, drawn uniformly, or any where there are none."""
    left, chance, rng = iter(kept), at_random(env, seed), np.random.default_rng(seed)

    def act(observation: Any) -> Any:
        action = next(left, None)
        if action is None and not idle:
            return chance(observation)
        who = f"task {task.name!r}: a recorded or idle action"
        try:
            return cast(env.action_space, rng.choice(idle) if action is None else action, who)
        except TaskError as error:
            raise Unobtainable(f"recorded actions cannot be played again: {error}") from error

    return act


def _same_beginning(played: Trajectory, recorded: Trajectory, steps: int) -> bool:
    """Whether the frames up to that of step ``steps`` are equal in both."""
    return len(played) >= steps and all(
        np.array_equal(played.frames[step], recorded.frames[step]) for step in range(steps + 1)
    )
