"""A corridor that PPO solves in seconds, whose frames tell where and when they were taken; and a reward read off it."""

import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from carl.errors import BoxError
from carl.rewards.latch import PROGRESS, PROGRESS_SLOTS
from carl.rewards.source import Judged, Need, Seen
from carl.task import Task


class Corridor(gym.Env):
    """Walk right along ``length`` cells; reward 1 at the end. Left is 0, right 1.

    The frame's first pixel holds (position, step, episode); ``patience`` steps truncate.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  gymnasium's convention

    def __init__(self, length: int = 4, patience: int = 20) -> None:
        self.length, self.patience = length, patience
        self.render_mode = "rgb_array"
        self.action_space = gym.spaces.Discrete(2)
        self.observation_space = gym.spaces.Box(0.0, 1.0, (length + 1,), np.float32)
        self.position = self.steps = self.episode = 0
        self.renders = 0
        self.seeds: list[int | None] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.position = self.steps = 0
        self.episode += 1
        return self._observation(), {}

    def step(self, action: int):
        self.steps += 1
        self.position = max(0, self.position + (1 if action == 1 else -1))
        arrived = self.position >= self.length
        return self._observation(), float(arrived), arrived, not arrived and self.steps >= self.patience, {}

    def render(self):
        self.renders += 1
        frame = np.zeros((8, 8, 3), np.uint8)
        frame[0, 0] = self.position, self.steps, self.episode % 256
        return frame

    def _observation(self):
        return np.eye(self.length + 1, dtype=np.float32)[min(self.position, self.length)]


class SteeredCorridor(Corridor):
    """The same with one continuous action: right if positive."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def step(self, action):
        return super().step(int(action[0] > 0))


class CoinFlip(Corridor):
    """Half the seeds succeed after 2 steps whatever is done, the others fail after 20."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        result = super().reset(seed=seed)
        self.lucky = bool(self.np_random.integers(2))
        return result

    def step(self, action: int):
        self.steps += 1
        won = self.lucky and self.steps >= 2
        return self._observation(), float(won), won, not self.lucky and self.steps >= 20, {}


class Deadly(Corridor):
    """Kills its process once, at its 30th step, leaving the file named by the environment variable as a mark."""

    lived = 0

    def step(self, action: int):
        Deadly.lived += 1
        mark = os.environ.get("CARL_TEST_MARK", "")
        if mark and Deadly.lived == 30 and not os.path.exists(mark):
            open(mark, "w").close()
            os._exit(1)
        return super().step(action)


class Failing(Corridor):
    """Raises in ``where``: "make", "reset", "step" or "render"."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where
        self._pass("make")

    def _pass(self, here: str) -> None:
        if here == self._where:
            raise OSError(f"no {here}")

    def reset(self, **kwargs: Any):
        self._pass("reset")
        return super().reset(**kwargs)

    def step(self, action: int):
        self._pass("step")
        return super().step(action)

    def render(self):
        self._pass("render")
        return super().render()


@dataclass(frozen=True)
class Furthest:
    """Pays the best share of the corridor walked so far, times ``scale``; abstains at the positions in ``blind``."""

    scale: float = 1.0
    length: int = 4
    blind: frozenset[int] = frozenset()
    opened: list[Any] = field(default_factory=list, compare=False)

    @property
    def id(self) -> str:
        return f"furthest-{self.scale}"

    needs = frozenset({Need.FRAMES})
    shows = PROGRESS

    def open(self, slots: int) -> "FurthestSession":
        session = FurthestSession(self, slots)
        self.opened.append(session)
        return session


@dataclass(frozen=True)
class Shut:
    """A source that cannot be opened."""

    id: str = "shut"
    needs = frozenset({Need.FRAMES})
    shows = PROGRESS

    def open(self, slots: int):
        raise BoxError("no room for a box")


class FurthestSession:
    """Remembers every frame it looked at, in ``seen``: (what, slot, position, step, episode)."""

    def __init__(self, source: Furthest, slots: int) -> None:
        self.source, self.best, self.closed = source, np.zeros(slots), False
        self.seen: list[tuple[str, int, int, int, int]] = []
        self.calls = 0

    @property
    def counts(self):
        return {"calls": self.calls}

    def close(self) -> None:
        self.closed = True

    def look(self, seen: Seen) -> Judged:
        self.calls += 1
        slots, frames = seen.slots, seen.frames
        self.best[slots[seen.began]] = 0.0
        rows = zip(seen.began, slots, frames, strict=True)
        self.seen += [("reset" if began else "step", int(s), *map(int, f[0, 0])) for began, s, f in rows]
        positions = frames[:, 0, 0, 0]
        abstained = np.isin(positions, list(self.source.blind))
        shown = np.where(abstained, 0.0, positions / self.source.length)
        gain = np.maximum(shown - self.best[slots], 0.0)
        self.best[slots] += gain
        progress = np.zeros((len(slots), PROGRESS_SLOTS), np.float32)
        progress[:, 0] = self.best[slots]
        return Judged(np.where(seen.began, 0.0, gain * self.source.scale), progress, abstained)


CORRIDOR = Task(name="corridor", description="Walk to the right end.", make=Corridor)
STEERED = Task(
    name="steered", description="Walk to the right end.", make=SteeredCorridor, defaults={"train.algorithm": "sac"}
)
COIN_FLIP = Task(name="coin-flip", description="Be lucky.", make=CoinFlip)
DEADLY = Task(name="deadly", description="Walk to the right end.", make=Deadly)
FAILURES = ("make", "reset", "step", "render", "success")
"""What ``failing`` takes."""


def failing(where: str) -> Task:
    """The corridor whose code raises OSError("no ...") in ``where``."""
    task = replace(CORRIDOR, make=partial(Failing, where))
    return replace(task, success=_no_success) if where == "success" else task


def _no_success(*args: Any) -> bool:
    raise OSError("no success")
