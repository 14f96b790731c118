"""Checkpoints that are whole or absent: RLlib's folder and our own counters, put in place by one rename."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from carl.errors import StoreError

ALGORITHM, STATE = "algorithm", "state.json"
DRAFT = "draft"
"""Folder of a checkpoint that is being written."""

KEPT = 2
"""Checkpoints kept; older ones are removed."""


@dataclass(frozen=True)
class Progressed:
    """How far a training has come.

    Attributes:
        env_steps, episodes, succeeded, iterations: counted since its very start; episodes those that ended.
        counts: what CodeReward counted since then, by name: judged, abstains, and what its sessions say.
        abstaining: iterations in which more than ``carl.abstains.MAX_SHARE`` of the judged frames abstained.
        stale_steps: learned from since then, though paid by an older version than the newest at that time.
        rework_steps: environment steps that were trained after a checkpoint, lost in a stop and trained again.
        seconds: wall-clock time spent sampling and learning; neither evaluation nor start-up counts.
        generation: how often the training was resumed.
        reward_version, source_id: what paid last.
        curve_points: lines of the learning curve that belong to it.
        solved: it stopped early, at the success rate that was asked for.
    """

    env_steps: int = 0
    episodes: int = 0
    succeeded: int = 0
    iterations: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    abstaining: int = 0
    stale_steps: int = 0
    rework_steps: int = 0
    seconds: float = 0.0
    generation: int = 0
    reward_version: int = 0
    source_id: str | None = None
    curve_points: int = 0
    solved: bool = False

    @property
    def abstains(self) -> int:
        """Frames that could not be judged."""
        return self.counts.get("abstains", 0)

    @property
    def cut(self) -> int:
        """Episodes that were truncated because the environment would not have ended them."""
        return self.counts.get("cut", 0)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises StoreError."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"cannot read {path}: {error}; remove {path.parent} to train from before it") from error


class Checkpoints:
    """The numbered checkpoints of one training."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()

    def latest(self) -> Path | None:
        """The newest checkpoint, or None."""
        found = sorted(path for path in self._directory.glob("[0-9]*") if (path / STATE).is_file())
        return found[-1] if found else None

    def save(self, algorithm: Any, progressed: Progressed) -> Path:
        """Write a checkpoint, then remove those that are older than the last KEPT."""
        draft = self._directory / DRAFT
        shutil.rmtree(draft, ignore_errors=True)
        path = self._directory / f"{progressed.env_steps:012d}"
        try:
            algorithm.save_to_path(draft / ALGORITHM)
            (draft / STATE).write_text(json.dumps(asdict(progressed)))
            # One that is there already was written at the same step by this training: the new one is at least as far.
            shutil.rmtree(path, ignore_errors=True)
            os.replace(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)  # a full disk is in need of the room
        for old in sorted(self._directory.glob("[0-9]*"))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return path
