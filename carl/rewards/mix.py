"""What a step is worth and what the policy is shown, whatever the source."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from carl.errors import RewardError
from carl.rewards.latch import PROGRESS
from carl.rewards.session import SOURCE
from carl.rewards.source import RewardSource, width


@dataclass(frozen=True)
class Mix:
    """What a step is worth: ``source * (reward of the source) + env * (the environment's own reward)``.

    ``shows`` is the part of the policy's observation that the source fills, a Box of one dimension and of floats: it is
    appended to a flat Box of floats, and lies beside any other observation as the part "progress" of a Dict. None shows
    the policy nothing, whatever the source would.
    """

    source: float = 1.0
    env: float = 0.0
    shows: gym.spaces.Box | None = None

    def __post_init__(self) -> None:
        box = self.shows
        if box is not None and not (len(box.shape) == 1 and np.issubdtype(box.dtype, np.floating)):
            raise RewardError(f"a source shows a Box of one dimension and of floats, not {box}")

    @property
    def looks(self) -> bool:
        """Whether a source is needed at all."""
        return self.source > 0 or self.shows is not None

    def check(self, source: RewardSource) -> None:
        """Raise RewardError if ``source`` shows something else than what environments of this mix are built for."""
        if self.shows is not None and source.shows != self.shows:
            raise RewardError(
                f"{SOURCE}{source.id} shows {source.shows}, and these environments were built for {self.shows}: "
                "publish a source that shows the same, or begin another training"
            )

    @property
    def noted(self) -> dict[str, Any]:
        """What is noted of it beside a training, as JSON: both weights, and how many numbers the source shows."""
        return {"source": self.source, "env": self.env, "shows": width(self.shows)}

    @staticmethod
    def renoted(there: Any) -> Any:
        """What a training noted as its mix, under today's keys: earlier ones are ``code``, ``env`` and ``progress``."""
        match there:
            case {"code": source, "env": env, "progress": bool(progress)}:
                return {"source": source, "env": env, "shows": width(PROGRESS if progress else None)}
        return there
