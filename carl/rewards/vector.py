"""CodeReward: a RewardSource at work on a gymnasium vector environment. Needs no Ray."""

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any, Self, TypeGuard

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from carl.config import RewardConfig
from carl.errors import TaskError
from carl.rewards.finite import check_finite, finite
from carl.rewards.frames import Frames
from carl.rewards.infos import RawInfos
from carl.rewards.source import PROGRESS_SLOTS, RewardSession, RewardSource
from carl.task import Task, overlong

Mask = NDArray[np.bool_]

JUDGED = ("reward_version", "env_reward", "abstained", "success", "cut")
"""What CodeReward adds to ``info``."""

PROGRESS = "progress"
"""Part of a Dict of observations that shows progress."""


@dataclass(frozen=True)
class Mix:
    """What a step is worth: ``code * (reward of the source) + env * (the environment's own reward)``.

    ``progress`` shows the policy the source's PROGRESS_SLOTS progress: appended to a flat Box of floats, and beside any
    other observation as the part PROGRESS of a Dict.
    """

    code: float = 1.0
    env: float = 0.0
    progress: bool = True

    @classmethod
    def of(cls, config: RewardConfig, task: Task) -> Self:
        """The mix that ``config`` asks for on ``task``."""
        if config.source == "code":
            weight = task.env_reward_weight if config.env_reward_weight is None else config.env_reward_weight
            return cls(1.0, weight, config.progress_in_observation)
        return cls(0.0, 1.0, progress=config.source == "sparse+progress")

    @property
    def looks(self) -> bool:
        """Whether frames have to be taken and judged at all."""
        return self.code > 0 or self.progress


class CodeReward(gym.vector.VectorWrapper):
    """Pays a vector environment by a RewardSource, and shows the policy what has been paid.

    Every sub-environment's camera frame is judged once per vector step. The frame of a terminal or truncated step
    is the old episode's: the environment has to reset on the step after it (NEXT_STEP). On that reset step there is
    a new initial frame, cleared progress, and reward 0. ``reset(options={"reset_mask": ...})`` begins new episodes
    in the masked slots at once.

    A source handed over by ``set_source``, from whichever thread, is adopted by each slot at its next episode start,
    so that no episode mixes two.

    ``info`` gets the arrays JUDGED, of length N: ``reward_version`` (int64, the version that judged this step; 0 for
    none), ``env_reward`` (float64, measured whatever its weight), and as bool ``abstained``, ``success`` (the task's,
    read from the sub-environment's own info) and ``cut`` (truncated here, because the environment sets no time limit;
    see ``carl.task.LONGEST``. In a SyncVectorEnv only).

    Attributes:
        idle: ``bool[N]``; slots set here are neither looked at nor paid. The caller does not care for them.
        judged, abstains: frames that a source was asked about so far, initial ones included; and those of them that it
            could not judge.
        cut: episodes that were truncated here so far.

    Raises:
        TaskError: the environment resets in another mode, hides its sub-environments or their infos, or has
            observations with a part PROGRESS of their own; from ``reset`` and ``step``: an observation or a reward is
            NaN or infinite.
        BoxError: from ``reset`` and ``step``: the process that runs the program stays away.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        task: Task,
        source: RewardSource | None = None,
        *,
        mix: Mix | None = None,
        version: int = 1,
    ) -> None:
        self._sessions: dict[int, RewardSession] = {}
        self._swapping = threading.Lock()
        self._over = False
        super().__init__(env)
        self._inner: Any = env
        self.task = task
        self.mix = mix or Mix(env=task.env_reward_weight)
        _check_autoreset(env)
        self._frames = Frames(task, _sub_environments(env) if self.mix.looks else [])
        self.idle: Mask = np.zeros(self.num_envs, dtype=bool)
        self.judged = self.abstains = self.cut = 0
        self._infos = RawInfos(env)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._cuts = isinstance(env.unwrapped, SyncVectorEnv)
        self._closed_counts: Counter[str] = Counter()
        self._ended: Mask = np.zeros(self.num_envs, dtype=bool)
        self._progress = np.zeros((self.num_envs, PROGRESS_SLOTS), dtype=np.float32)
        self._latest = 0
        self._versions = np.zeros(self.num_envs, dtype=np.int64)
        if self.mix.progress:
            self.single_observation_space = _with_progress(env.single_observation_space)
            self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        if source is not None:
            self.set_source(version, source)

    @property
    def version(self) -> int:
        """The version that slots adopt at their next episode start; 0 is no source."""
        return self._latest

    def set_source(self, version: int, source: RewardSource) -> None:
        """Pay by ``source`` from each slot's next episode start on; raises BoxError and keeps the old one.

        May be called in another thread, but by one at a time: episodes that begin in vector steps from now on adopt it.
        """
        if version == self._latest or not self.mix.looks:
            return
        session = source.open(self.num_envs)
        with self._swapping:
            unused = [session]
            if not self._over:
                self._sessions[version] = session
                self._latest = version
                unused = self._pop_unused()
        _close(unused)

    def reset(  # type: ignore[override]  # gymnasium takes lists of seeds, but its annotation forgets them
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        began = np.ones(self.num_envs, dtype=bool)
        if options and "reset_mask" in options:
            began = options["reset_mask"].copy()
            options = dict(options)  # gymnasium 1.2.2 takes the mask out of it
        observations, infos = self._inner.reset(seed=seed, options=options)
        self._ended[began] = False
        self._lengths[began] = 0
        check_finite(self.task.name, "the observation", observations, self._lengths)
        _, abstained = self._judge(began, np.zeros_like(began))
        nothing = np.zeros(self.num_envs)
        no = nothing.astype(bool)
        return self._observe(observations), self._inform(infos, abstained, nothing, success=no, cut=no)

    def step(  # type: ignore[override]  # gymnasium's own types here are free variables
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], Mask, Mask, dict[str, Any]]:
        observations, env_rewards, terminated, truncated, infos = self._inner.step(actions)
        began, stepped = self._ended, ~self._ended
        self._lengths += stepped
        self._lengths[began] = 0
        check_finite(self.task.name, "the observation", observations, self._lengths)
        cut = self._cut(terminated, truncated)
        earned, abstained = self._judge(began, stepped)
        rewards = self.mix.code * earned + self.mix.env * np.where(stepped, env_rewards, 0.0)
        if not finite(rewards):
            check_finite(self.task.name, "the environment's reward", env_rewards, self._lengths)
            check_finite(self.task.name, "the source's reward", earned, self._lengths)
        success = self._success(stepped & ~self.idle, env_rewards, terminated, truncated)
        self._ended = terminated | truncated
        return (
            self._observe(observations),
            rewards,
            terminated,
            truncated,
            self._inform(infos, abstained, env_rewards, success=success, cut=cut),
        )

    def close(self, **kwargs: Any) -> None:
        """Close all sessions and the environment."""
        with self._swapping:
            self._over = True
            sessions = list(self._sessions.values())
            self._sessions.clear()
            for session in sessions:
                self._closed_counts.update(session.counts)
        _close(sessions)
        super().close(**kwargs)

    def _cut(self, terminated: Mask, truncated: Mask) -> Mask:
        """Truncate episodes of which the environment sees no end; returns where."""
        cut: Mask = overlong(self._lengths) & ~(terminated | truncated | self.idle) & self._cuts
        if cut.any():
            self.cut += int(cut.sum())
            truncated |= cut
            self._inner.unwrapped._autoreset_envs |= cut  # has them reset in the next step, as if they had ended
        return cut

    def _judge(self, began: Mask, stepped: Mask) -> tuple[NDArray[np.float64], Mask]:
        """Let every slot's version judge its frame; returns ``float64[N]`` earned and ``bool[N]`` abstained."""
        earned, abstained = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=bool)
        self._progress[began] = 0.0
        for version, session in self._adopt(began):
            mine = (self._versions == version) & ~self.idle
            for ask, mask in ((session.reset, began), (session.step, stepped)):
                slots = np.flatnonzero(mine & mask)
                if slots.size:
                    judged = ask(slots, self._frames.take(slots))
                    earned[slots], abstained[slots] = judged.reward, judged.abstained
                    self._progress[slots] = judged.progress
                    self.judged += slots.size
        earned[began] = 0.0
        self.abstains += int(abstained.sum())
        return earned, abstained

    def _adopt(self, began: Mask) -> list[tuple[int, RewardSession]]:
        """Give episodes that begin the latest version; returns the sessions, of which no slot's is closed meanwhile."""
        unused: list[RewardSession] = []
        with self._swapping:
            if (self._versions[began] != self._latest).any():
                self._versions[began] = self._latest
                unused = self._pop_unused()
            sessions = list(self._sessions.items())
        _close(unused)
        return sessions

    def _pop_unused(self) -> list[RewardSession]:
        unused = [self._sessions.pop(old) for old in set(self._sessions) - {self._latest, *self._versions.tolist()}]
        for session in unused:
            self._closed_counts.update(session.counts)
        return unused

    @property
    def counts(self) -> Counter[str]:
        """``judged``, ``abstains``, ``cut``, and what the sessions counted so far (see RewardSession.counts)."""
        with self._swapping:
            counts = Counter(self._closed_counts)
            counts.update(judged=self.judged, abstains=self.abstains, cut=self.cut)
            for session in self._sessions.values():
                counts.update(session.counts)
        return counts

    def _observe(self, observations: Any) -> Any:
        """With progress, and never in an array that a later step writes to."""
        if not self.mix.progress:
            return observations
        if isinstance(self.single_observation_space, gym.spaces.Box):
            return np.concatenate([observations, self._progress], axis=1, dtype=np.float32, casting="same_kind")
        parts = observations if isinstance(observations, dict) else {"observation": observations}
        return {**parts, PROGRESS: self._progress.copy()}

    def _success(self, stepped: Mask, rewards: NDArray[np.float64], terminated: Mask, truncated: Mask) -> Mask:
        success = np.zeros(self.num_envs, dtype=bool)
        for slot in np.flatnonzero(stepped).tolist():
            success[slot] = self.task.success(
                float(rewards[slot]), bool(terminated[slot]), bool(truncated[slot]), self._infos.raw[slot]
            )
        return success

    def _inform(
        self, infos: dict[str, Any], abstained: Mask, env_rewards: NDArray[np.float64], *, success: Mask, cut: Mask
    ) -> dict[str, Any]:
        judged = (self._versions.copy(), env_rewards, abstained, success, cut)
        ours = dict(zip(JUDGED, judged, strict=True))
        everyone = np.ones(self.num_envs, dtype=bool)
        return {**infos, **ours, **{f"_{key}": everyone for key in ours}}


def _close(sessions: list[RewardSession]) -> None:
    for session in sessions:
        session.close()


def _check_autoreset(env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
    # A vector environment's metadata may be one dictionary shared with others, so its own attribute goes first.
    mode = getattr(env.unwrapped, "autoreset_mode", env.metadata.get("autoreset_mode"))
    if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.NEXT_STEP.value):
        raise TaskError(
            f"{env} resets in mode {mode}; the last frame of an episode can only be judged in NEXT_STEP: build it with "
            "gymnasium.vector.SyncVectorEnv(..., autoreset_mode=AutoresetMode.NEXT_STEP)"
        )


def _sub_environments(env: gym.vector.VectorEnv[Any, Any, Any]) -> list[gym.Env[Any, Any]]:
    envs = getattr(env.unwrapped, "envs", None)
    if envs is None:
        raise TaskError(f"{env} hides its sub-environments from the task's camera: use gymnasium.vector.SyncVectorEnv")
    return list(envs)


def _with_progress(space: gym.Space[Any]) -> gym.Space[Any]:
    """Appended to a flat Box of floats; in a Dict, which other observations are put into, under PROGRESS."""
    slots = np.zeros(PROGRESS_SLOTS, dtype=np.float32)
    progress = gym.spaces.Box(slots, slots + 1, dtype=np.float32)
    if _is_vector(space):
        low, high = np.concatenate([space.low, slots]), np.concatenate([space.high, slots + 1])
        return gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
    parts = dict(space.spaces) if isinstance(space, gym.spaces.Dict) else {"observation": space}
    if PROGRESS in parts:
        raise TaskError(
            f"the task's own observations have a part called {PROGRESS!r}, which is where progress goes: rename it in "
            "the task's make(), or set reward.progress_in_observation=false"
        )
    return gym.spaces.Dict({**parts, PROGRESS: progress})


def _is_vector(space: gym.Space[Any]) -> TypeGuard[gym.spaces.Box]:
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating)
