"""When a training ends before its steps are used up: the goal is near, or nothing is sampled any more."""

import time

from carl.errors import ResourceError

SELECTION_EPISODES = 100
"""Episodes on which an early stop is decided."""

SCREEN_EPISODES, SCREEN_MARGIN = 32, 0.05
"""Training episodes at a time that must come within the margin of the goal before the selection episodes are played."""

PATIENCE_S = 120.0
"""How long to sample without a single step, runners dying one after the other, before training gives up."""

PAUSE_S = 0.5
"""Pause after an iteration without a step, for runners that are restarting."""


class Rate:
    """The success rate of the training episodes since the last ``clear``."""

    def __init__(self) -> None:
        self._ended = self._succeeded = 0

    def add(self, ended: int, succeeded: int) -> None:
        """Add episodes that ended, and how many of them succeeded."""
        self._ended += ended
        self._succeeded += succeeded

    @property
    def episodes(self) -> int:
        """How many ended."""
        return self._ended

    @property
    def value(self) -> float | None:
        """Their success rate; None if none ended."""
        return self._succeeded / self._ended if self._ended else None

    def clear(self) -> None:
        """Begin anew."""
        self._ended = self._succeeded = 0


class Screen:
    """Whether training episodes, which cost nothing, come near the success rate ``goal``; never without one."""

    def __init__(self, goal: float | None) -> None:
        self._goal, self._rate = goal, Rate()

    def add(self, ended: int, succeeded: int) -> None:
        """Add the training episodes of an iteration."""
        self._rate.add(ended, succeeded)

    def passes(self) -> bool:
        """Whether the latest SCREEN_EPISODES or more came within SCREEN_MARGIN of the goal; each counts once."""
        if self._goal is None or self._rate.episodes < SCREEN_EPISODES:
            return False
        rate = self._rate.value or 0.0
        self._rate.clear()
        return rate >= self._goal - SCREEN_MARGIN


class Patience:
    """Gives restarted env runners time to come up."""

    def __init__(self) -> None:
        self._fruitless_s = 0.0

    def expect(self, steps: int, seconds: float) -> None:
        """After an iteration of ``steps`` environment steps in ``seconds``: pause if there were none.

        Raises ResourceError after PATIENCE_S without a step.
        """
        if steps:
            self._fruitless_s = 0.0
            return
        self._fruitless_s += seconds + PAUSE_S
        if self._fruitless_s > PATIENCE_S:
            raise ResourceError(
                f"no environment step for {PATIENCE_S:g} s: the env runners keep failing. Their errors are in Ray's "
                "logs (session_latest/logs in Ray's temporary directory)"
            )
        time.sleep(PAUSE_S)
