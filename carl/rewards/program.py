"""ProgramReward: a verified program as a RewardSource, judged in a box."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from carl.config import VerifyConfig
from carl.errors import TaskError
from carl.program import RewardProgram
from carl.rewards.cache import JudgementCache
from carl.rewards.latch import PROGRESS, PROGRESS_SLOTS, Latch, Slots
from carl.rewards.source import Judged, Need, Seen
from carl.sandbox.box import Box, Limits
from carl.task import Frame


@dataclass(frozen=True)
class ProgramReward:
    """The latched, bounded reward of ``program``; each session runs it in a child process of its own.

    ``cache`` keeps a session from judging the same frame of an episode twice.
    """

    program: RewardProgram
    limits: Limits = field(default_factory=Limits)
    cache: bool = True

    @classmethod
    def of(cls, program: RewardProgram, config: VerifyConfig, *, cache: bool = True) -> Self:
        """The reward of ``program`` under the limits that it was verified with."""
        return cls(program, Limits(deadline_s=config.deadline_s, memory_mb=config.memory_mb), cache)

    @property
    def id(self) -> str:
        """The program's."""
        return self.program.id

    @property
    def provenance(self) -> Mapping[str, Any] | None:
        """The program's, as JSON; None if it has none."""
        origin = self.program.provenance
        return origin.model_dump(mode="json") if origin else None

    @property
    def needs(self) -> frozenset[Need]:
        """Frames."""
        return frozenset({Need.FRAMES})

    @property
    def shows(self) -> gym.spaces.Box:
        """Latched progress of each sub-task, ``float32[PROGRESS_SLOTS]`` in [0, 1], zero-padded."""
        return PROGRESS

    def open(self, slots: int) -> "ProgramSession":
        """Start the program for ``slots`` environments; raises BoxError, or ProgramError if the policy refuses it."""
        return ProgramSession(self, slots)


class ProgramSession:
    """A program at work on some environment slots: for each round of the latch one call of the box, with the frames
    it has not judged before. Slots that still show what they showed are not looked at: programs are pure. Where a
    sub-task has to last they are, since that it lasts is news.

    A row abstains if one of its active sub-tasks did; what its other sub-tasks earned is kept.
    """

    def __init__(self, source: ProgramReward, slots: int) -> None:
        self._latch = Latch(source.program, slots)
        self._slots = slots
        self._initials: Frame | None = None
        self._reason = ""
        self._abstained = np.zeros(slots, dtype=bool)
        self._cache = JudgementCache(slots) if source.cache else None
        self._box = Box(source.program, source.limits)

    @property
    def counts(self) -> dict[str, int]:
        """Judgements that were known (``cache_hits``) and that the program was run for (``cache_misses``); processes
        that had to be replaced (``box_restarts``); episodes that began (``begun``), and in which sub-task k, counted
        from 1, got done (``fired:k``)."""
        return {
            **(self._cache.counts if self._cache else {"cache_hits": 0, "cache_misses": 0}),
            "box_restarts": self._box.restarts,
            "begun": self._latch.begun,
            **{f"fired:{number}": int(count) for number, count in enumerate(self._latch.fired, 1)},
        }

    def look(self, seen: Seen) -> Judged:
        """Judge the frames of one vector step, the initial ones of new episodes among them.

        Raises TaskError if frames change their size, and BoxError if the program's process stays away.
        """
        slots, began, frames = seen.slots, seen.began, seen.frames
        assert frames is not None  # it needs them
        if began.any():
            self._remember(slots[began], frames[began])
        earned, abstained = np.zeros(len(slots)), np.zeros(len(slots), dtype=bool)
        news = self._news(slots, began, frames)
        if news.size:
            earned[news], abstained[news] = self._latch.look(
                slots[news], began[news], lambda rows, tasks: self._ask(slots, frames, news[rows], tasks)
            )
        self._abstained[slots] = abstained
        shown = np.zeros((len(slots), PROGRESS_SLOTS), dtype=np.float32)
        shown[:, : self._latch.best.shape[1]] = self._latch.best[slots]
        return Judged(earned, shown, abstained, self._reason)

    def close(self) -> None:
        """End the program's process; harmless when called twice."""
        self._box.close()

    def _remember(self, slots: Slots, frames: Frame) -> None:
        """Keep the initial ``frames`` of ``slots`` in the box's memory."""
        if self._initials is None:
            self._initials = self._box.room(self._slots, *frames.shape[1:3])
        if frames.shape[1:] != self._initials.shape[1:]:
            raise TaskError(
                f"frames changed from {list(self._initials.shape[1:])} to {list(frames.shape[1:])}; "
                "a task's camera has to keep one size over all episodes"
            )
        self._initials[slots] = frames

    def _news(self, slots: Slots, began: NDArray[np.bool_], frames: Frame) -> Slots:
        """Rows that show something else than before, or could not be judged then."""
        if self._cache is None:
            return np.arange(len(slots))
        news = self._cache.see(slots, began, frames) | self._abstained[slots] | self._latch.holds
        self._cache.hits += int(np.count_nonzero(self._latch.active[slots[~news]]))
        return np.flatnonzero(news)

    def _ask(self, slots: Slots, frames: Frame, rows: Slots, tasks: Slots) -> NDArray[np.float64]:
        if self._cache is None:
            return self._ask_box(slots, frames, rows, tasks)
        return self._cache.judge(
            slots[rows], tasks, lambda unknown: self._ask_box(slots, frames, rows[unknown], tasks[unknown])
        )

    def _ask_box(self, slots: Slots, frames: Frame, rows: Slots, tasks: Slots) -> NDArray[np.float64]:
        assert self._initials is not None  # every slot's first row begins an episode
        judgement = self._box.judge(frames, self._initials, tasks, rows, slots[rows])
        if judgement.reasons:
            self._reason = next(iter(judgement.reasons.values()))
        return judgement.values
