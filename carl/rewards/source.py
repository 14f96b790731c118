"""RewardSource: what an environment asks for rewards, whatever computes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from carl.task import Frame


class Need(StrEnum):
    """What a source looks at. Nothing is filmed, copied or flattened that no source needs."""

    FRAMES = "frames"
    OBSERVATIONS = "observations"
    ACTIONS = "actions"
    ENV_REWARD = "env_reward"
    TEXT = "text"


@dataclass(frozen=True, eq=False)
class Seen:
    """One vector step: M slots, each at the start of an episode or one step further in it.

    What the source does not need is None. Arrays are valid during the call only, since the next step may overwrite
    them: copy what has to last, and do not write to them.

    Attributes:
        slots: ``intp[M]``, each once, in any order.
        began: ``bool[M]``; rows that show the start of a new episode. They earn 0.
        frames: ``uint8[M, H, W, 3]``, the task's camera.
        observations: ``float32[M, D]``, the environment's own, flattened as ``gymnasium.spaces.flatten`` does it.
        actions: ``float32[M, A]``, flattened the same way: what led here. 0 where an episode began.
        env_reward: ``float64[M]``, the environment's own reward for that. 0 where an episode began.
        text: M strings: ``info["text"]`` of each environment, or the task's description where there is none.
    """

    slots: NDArray[np.intp]
    began: NDArray[np.bool_]
    frames: Frame | None = None
    observations: NDArray[np.float32] | None = None
    actions: NDArray[np.float32] | None = None
    env_reward: NDArray[np.float64] | None = None
    text: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Judged:
    """What a session makes of M rows of Seen.

    Attributes:
        reward: ``float64[M]``, finite; 0 where an episode began.
        shown: ``float32[M, S]``, inside the source's Box ``shows`` of S numbers; ``[M, 0]`` if it shows nothing.
        abstained: ``bool[M]``: part of the source could not judge this row, and that part earned nothing.
        reason: why the last of those abstained, for the log.
    """

    reward: NDArray[np.float64]
    shown: NDArray[np.float32]
    abstained: NDArray[np.bool_]
    reason: str = ""


class RewardSession(Protocol):
    """A reward at work on a fixed number of environment slots, in one process. Close it when done."""

    @property
    def counts(self) -> Mapping[str, int]:
        """What happened since it was opened, by name, for metrics. Counts only grow, and are read after close too."""

    def look(self, seen: Seen) -> Judged:
        """Judge one vector step: the rows that begin an episode and those that go on, together.

        Every slot's first row begins an episode. A slot may be left out of a step. What cannot be judged is an abstain;
        an exception ends the training.
        """

    def close(self) -> None:
        """Release what the session holds; harmless when called twice."""


class RewardSource(Protocol):
    """A reward as picklable data: cheap to broadcast, opened where it is used.

    One that also has a ``provenance``, a mapping for JSON, gets it written beside its id on checkpoints.
    """

    @property
    def id(self) -> str:
        """Names the reward on checkpoints and reports; equal ids mean equal rewards."""

    @property
    def needs(self) -> frozenset[Need]:
        """What is filled of Seen."""

    @property
    def shows(self) -> gym.spaces.Box | None:
        """What it adds to the policy's observation: a Box of one dimension and of floats; None for nothing."""

    def open(self, slots: int) -> RewardSession:
        """Start a session for ``slots`` environments; raises RewardError when it cannot."""


def provenance_of(source: RewardSource | None) -> Mapping[str, Any] | None:
    """Where a source came from, as JSON; None if it does not say."""
    return getattr(source, "provenance", None)


def width(shows: gym.spaces.Box | None) -> int:
    """How many numbers ``shows`` has; 0 for None."""
    return 0 if shows is None else int(shows.shape[0])


def blank(shows: gym.spaces.Box | None) -> NDArray[np.float32]:
    """What is shown where no source has looked, ``float32[S]``: 0, or the bound of ``shows`` that is nearest to it."""
    if shows is None:
        return np.zeros(0, dtype=np.float32)
    nearest: NDArray[np.float32] = np.clip(0.0, shows.low, shows.high).astype(np.float32)
    return nearest
