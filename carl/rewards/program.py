"""ProgramReward: a verified program as a RewardSource, judged in a box."""

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from carl.config import VerifyConfig
from carl.errors import TaskError
from carl.program import RewardProgram
from carl.rewards.cache import JudgementCache
from carl.rewards.latch import Latch, Slots
from carl.rewards.source import PROGRESS_SLOTS, Judged
from carl.sandbox.box import Box, Limits
from carl.task import Frame

WINDOW = 1_000
MAX_ABSTAINS = 50
"""More abstains than this among the last ``WINDOW`` judged frames (5 %) put a program into quarantine."""

_log = logging.getLogger(__name__)


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

    def open(self, slots: int) -> "ProgramSession":
        """Start the program for ``slots`` environments; raises BoxError, or ProgramError if the policy refuses it."""
        return ProgramSession(self, slots)


class ProgramSession:
    """A program at work on some environment slots: for each round of the latch one call of the box, with the frames
    it has not judged before. Slots that still show what they showed are not looked at: programs are pure.

    A frame abstains if one of its active sub-tasks did; what its other sub-tasks earned is kept.

    Attributes:
        abstains: frames that could not be judged so far.
        quarantined: whether so many could not be judged lately that the program is run no more: every frame then
            abstains and earns nothing, and progress stays where it was until its episode ends.
    """

    def __init__(self, source: ProgramReward, slots: int) -> None:
        self._name = source.program.id
        self._latch = Latch(source.program, slots)
        self._slots = slots
        self._initials: Frame | None = None
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._reason = ""
        self.abstains = 0
        self.quarantined = False
        self._abstained = np.zeros(slots, dtype=bool)
        self._cache = JudgementCache(slots) if source.cache else None
        self._skipped = 0
        self._box = Box(source.program, source.limits)

    @property
    def counts(self) -> dict[str, int]:
        """Judgements that were known (``cache_hits``) and that the program was run for (``cache_misses``); processes
        that had to be replaced (``box_restarts``); 1 if the program is in quarantine (``quarantined``); episodes that
        began (``begun``), and in which sub-task k, counted from 1, got done (``fired:k``)."""
        cache = self._cache
        return {
            "cache_hits": cache.hits + self._skipped if cache else 0,
            "cache_misses": cache.misses if cache else 0,
            "box_restarts": self._box.restarts,
            "quarantined": int(self.quarantined),
            "begun": self._latch.begun,
            **{f"fired:{number}": int(count) for number, count in enumerate(self._latch.fired, 1)},
        }

    def reset(self, slots: Slots, frames: Frame) -> Judged:
        """Begin new episodes in ``slots`` (``intp[M]``) at their initial frames ``uint8[M, H, W, 3]``."""
        self._remember(slots, frames)
        if self.quarantined:
            self._latch.best[slots] = 0.0
            return self._judged(slots, np.zeros(len(slots)), np.ones(len(slots), dtype=bool))
        abstained = self._latch.reset(slots, lambda rows, tasks: self._ask(slots, frames, rows, tasks))
        return self._noted(slots, np.zeros(len(slots)), abstained)

    def step(self, slots: Slots, frames: Frame) -> Judged:
        """Judge the frames ``uint8[M, H, W, 3]`` that ``slots`` (``intp[M]``) stepped to."""
        if self.quarantined:
            return self._judged(slots, np.zeros(len(slots)), np.ones(len(slots), dtype=bool))
        earned, abstained = np.zeros(len(slots)), np.zeros(len(slots), dtype=bool)
        news = self._news(slots, frames)
        if news.size:
            earned[news], abstained[news] = self._latch.step(
                slots[news], lambda rows, tasks: self._ask(slots, frames, news[rows], tasks)
            )
        return self._noted(slots, earned, abstained)

    def close(self) -> None:
        """End the program's process; harmless when called twice."""
        self._box.close()

    def _remember(self, slots: Slots, frames: Frame) -> None:
        if self._initials is None:
            self._initials = self._box.room(self._slots, *frames.shape[1:3])
        if frames.shape[1:] != self._initials.shape[1:]:
            raise TaskError(
                f"frames changed from {list(self._initials.shape[1:])} to {list(frames.shape[1:])}; "
                "a task's camera has to keep one size over all episodes"
            )
        self._initials[slots] = frames
        if self._cache:
            self._cache.begin(slots, frames)

    def _news(self, slots: Slots, frames: Frame) -> Slots:
        """Rows that show something else than before, or could not be judged then."""
        if self._cache is None:
            return np.arange(len(slots))
        news = self._cache.see(slots, frames) | self._abstained[slots]
        self._skipped += int(np.count_nonzero(self._latch.active[slots[~news]]))
        return np.flatnonzero(news)

    def _ask(self, slots: Slots, frames: Frame, rows: Slots, tasks: Slots) -> NDArray[np.float64]:
        if self._cache is None:
            return self._ask_box(slots, frames, rows, tasks)
        return self._cache.judge(
            slots[rows], tasks, lambda unknown: self._ask_box(slots, frames, rows[unknown], tasks[unknown])
        )

    def _ask_box(self, slots: Slots, frames: Frame, rows: Slots, tasks: Slots) -> NDArray[np.float64]:
        assert self._initials is not None  # no step comes before its slot's reset
        judgement = self._box.judge(frames, self._initials, tasks, rows, slots[rows])
        if judgement.reasons:
            self._reason = next(iter(judgement.reasons.values()))
        return judgement.values

    def _noted(self, slots: Slots, earned: NDArray[np.float64], abstained: NDArray[np.bool_]) -> Judged:
        """Count the abstains among these frames, and draw the consequence."""
        self._abstained[slots] = abstained
        self._recent.extend(abstained.tolist())
        if abstained.any():
            self.abstains += int(abstained.sum())
            if sum(self._recent) > MAX_ABSTAINS:
                self._quarantine()
        return self._judged(slots, earned, abstained)

    def _quarantine(self) -> None:
        self.quarantined = True
        self._box.close()
        _log.warning(
            "program %s could not judge %d of the last %d frames and earns nothing more; the last reason: %s",
            self._name,
            sum(self._recent),
            len(self._recent),
            self._reason,
        )

    def _judged(self, slots: Slots, earned: NDArray[np.float64], abstained: NDArray[np.bool_]) -> Judged:
        progress = np.zeros((len(slots), PROGRESS_SLOTS), dtype=np.float32)
        progress[:, : self._latch.best.shape[1]] = self._latch.best[slots]
        return Judged(earned, progress, abstained)
