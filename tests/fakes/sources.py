"""Small sources of other kinds than a program: one that reads observations, and one that only shows something."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from carl.rewards.cache import JudgementCache
from carl.rewards.source import Judged, Need, Seen


@dataclass(frozen=True)
class Nearer:
    """Pays how much further along a corridor an observation shows the walker than any before it in the episode; needs
    no frames and shows nothing. Abstains at the position ``blind``."""

    scale: float = 1.0
    blind: int = -1

    needs = frozenset({Need.OBSERVATIONS})
    shows = None

    @property
    def id(self) -> str:
        return f"nearer-{self.scale}-{self.blind}"

    def open(self, slots: int) -> "NearerSession":
        return NearerSession(self, slots)


class NearerSession:
    """Keeps the best position of each slot's episode."""

    def __init__(self, source: Nearer, slots: int) -> None:
        self.source, self.best = source, np.zeros(slots)
        self.looks = self.closed = 0

    @property
    def counts(self) -> dict[str, int]:
        return {"looks": self.looks}

    def look(self, seen: Seen) -> Judged:
        self.looks += 1
        assert seen.observations is not None
        positions = seen.observations.argmax(axis=1)
        shares, slots = positions / (seen.observations.shape[1] - 1), seen.slots
        abstained = positions == self.source.blind
        self.best[slots[seen.began]] = shares[seen.began]
        gain = np.where(abstained, 0.0, np.maximum(shares - self.best[slots], 0.0))
        self.best[slots] += gain
        shown = np.zeros((len(slots), 0), np.float32)
        return Judged(self.source.scale * gain, shown, abstained, "blind" if abstained.any() else "")

    def close(self) -> None:
        self.closed += 1


@dataclass(frozen=True)
class Palette:
    """Shows the mean colour of each half of a frame, and pays nothing. What it knows of a frame it keeps."""

    shows: gym.spaces.Box = field(default_factory=lambda: gym.spaces.Box(-1.0, 1.0, (6,), np.float32))

    id = "palette"
    needs = frozenset({Need.FRAMES})

    def open(self, slots: int) -> "PaletteSession":
        return PaletteSession(slots)


class PaletteSession:
    """The cache is the one that programs use, of other answers."""

    def __init__(self, slots: int) -> None:
        self.cache = JudgementCache(slots, width=6, from_start=False)

    @property
    def counts(self) -> dict[str, int]:
        return self.cache.counts

    def look(self, seen: Seen) -> Judged:
        frames, rows = seen.frames, len(seen.slots)
        assert frames is not None
        self.cache.see(seen.slots, seen.began, frames)
        shown = self.cache.judge(seen.slots, np.zeros(rows, dtype=np.intp), lambda places: _means(frames[places]))
        return Judged(np.zeros(rows), shown.astype(np.float32), np.zeros(rows, dtype=bool))

    def close(self) -> None: ...


def _means(frames: Any) -> Any:
    middle = frames.shape[1] // 2
    halves = [half.mean(axis=(1, 2)) / 127.5 - 1 for half in (frames[:, :middle], frames[:, middle:])]
    return np.concatenate(halves, axis=1)
