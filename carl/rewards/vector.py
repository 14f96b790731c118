"""PaidVectorEnv: a gymnasium vector environment that a RewardSource pays. Needs no Ray."""

from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from carl.errors import RewardError, TaskError
from carl.rewards.finite import check_finite, finite
from carl.rewards.infos import RawInfos
from carl.rewards.mix import Mix
from carl.rewards.payers import Payers
from carl.rewards.session import SOURCE, SourceSession, blaming_source
from carl.rewards.shown import observed, space_with
from carl.rewards.source import RewardSource, blank
from carl.rewards.views import Views
from carl.task import Task, overlong

Mask = NDArray[np.bool_]

JUDGED = ("reward_version", "env_reward", "abstained", "success", "cut")
"""What PaidVectorEnv adds to ``info``."""


class PaidVectorEnv(gym.vector.VectorWrapper):
    """Pays a vector environment by a RewardSource, and shows the policy what the source shows.

    Every sub-environment is looked at once per vector step, and only at what the source needs. What a terminal or
    truncated step shows is the old episode's: the environment has to reset on the step after it (NEXT_STEP). On that
    reset step a new episode begins, with reward 0. ``reset(options={"reset_mask": ...})`` begins new episodes in the
    masked slots at once.

    A source passed to ``set_source``, from any thread, is adopted by each slot at its next episode start,
    so that no episode mixes two. Without a ``mix`` the source's reward is mixed with the task's share of the
    environment's own, and everything is shown that ``source`` shows.

    ``info`` gets the arrays JUDGED, of length N: ``reward_version`` (int64, the version that judged this step; 0 for
    none), ``env_reward`` (float64, measured whatever its weight), and as bool ``abstained``, ``success`` (the task's,
    read from the sub-environment's own info) and ``cut`` (truncated here, because the environment sets no time limit;
    see ``carl.task.LONGEST``. In a SyncVectorEnv only).

    Attributes:
        idle: ``bool[N]``; slots set here are neither looked at nor paid.
        judged, abstains: rows that a source was asked about so far, initial ones included; and those of them that it
            could not judge.
        cut: episodes that were truncated here so far.

    Raises:
        TaskError: the environment resets in another mode, hides its sub-environments' infos, or has observations with a
            part "progress" of their own; from ``reset`` and ``step``: an observation or its reward is NaN or infinite.
        RewardError: see ``set_source``; from ``reset`` and ``step``: the source failed while it judged, or paid
            NaN or an infinity.
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
        self._payers = Payers(env.num_envs)
        super().__init__(env)
        self._inner: Any = env
        self.task = task
        env_weight = task.defaults.get("reward.env_reward_weight", 0.0)
        self.mix = mix or Mix(env=env_weight, shows=source.shows if source else None)
        _check_autoreset(env)
        self.idle: Mask = np.zeros(self.num_envs, dtype=bool)
        self.judged = self.abstains = self.cut = 0
        self._infos = RawInfos(env)
        self._views = Views(task, env, self._infos)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._cuts = isinstance(env.unwrapped, SyncVectorEnv)
        self._ended: Mask = np.zeros(self.num_envs, dtype=bool)
        self._blank = blank(self.mix.shows)
        self._shown = np.tile(self._blank, (self.num_envs, 1))
        if self.mix.shows is not None:
            self.single_observation_space = space_with(self.mix.shows, env.single_observation_space)
            self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        if source is not None:
            self.set_source(version, source)

    @property
    def version(self) -> int:
        """The version that slots adopt at their next episode start; 0: no source yet."""
        return self._payers.newest

    def set_source(self, version: int, source: RewardSource) -> None:
        """Pay by ``source`` from each slot's next episode start on; raises RewardError and keeps the old one.

        It is refused if it cannot be opened, needs what this environment cannot show, or shows something else than the
        mix does. May be called in another thread, but by one at a time: episodes that begin in vector steps from now on
        adopt it.
        """
        if version == self.version or not self.mix.looks:
            return
        with blaming_source(str(getattr(source, "id", version)), "adopting it"):
            self.mix.check(source)
            self._views.prepare(source)
            session = SourceSession(source, self.num_envs)
        self._payers.add(version, session)

    def reset(  # type: ignore[override]  # gymnasium takes lists of seeds, but its annotation forgets them
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset all slots, or those in ``options["reset_mask"]`` (``bool[N]``); raises TaskError and RewardError."""
        began = np.ones(self.num_envs, dtype=bool)
        if options and "reset_mask" in options:
            began = options["reset_mask"].copy()
            options = dict(options)  # gymnasium 1.2.2 takes the mask out of it
        observations, infos = self._inner.reset(seed=seed, options=options)
        self._ended[began] = False
        self._lengths[began] = 0
        check_finite(self.task.name, "the observation", observations, self._lengths)
        self._views.stepped(observations)
        _, abstained = self._judge(began, np.zeros_like(began))
        nothing = np.zeros(self.num_envs)
        no = nothing.astype(bool)
        return self._observe(observations), self._inform(infos, abstained, nothing, success=no, cut=no)

    def step(  # type: ignore[override]  # gymnasium's own types here are free variables
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], Mask, Mask, dict[str, Any]]:
        """One step of N slots; rewards are ``float64[N]``.

        A slot that ended is reset by the next step, which ignores its action and earns 0. Raises TaskError for numbers
        that are not finite, and RewardError.
        """
        observations, env_rewards, terminated, truncated, infos = self._inner.step(actions)
        began, stepped = self._ended, ~self._ended
        self._lengths += stepped
        self._lengths[began] = 0
        check_finite(self.task.name, "the observation", observations, self._lengths)
        cut = self._cut(terminated, truncated)
        self._views.stepped(observations, actions, env_rewards)
        earned, abstained = self._judge(began, stepped)
        rewards = self.mix.source * earned + self.mix.env * np.where(stepped, env_rewards, 0.0)
        if not finite(rewards):
            check_finite(self.task.name, "the environment's reward", env_rewards, self._lengths)
            self._check_earned(earned)
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
        self._payers.close()
        super().close(**kwargs)

    def _check_earned(self, earned: NDArray[np.float64]) -> None:
        for slot in np.flatnonzero(~np.isfinite(earned)).tolist():
            raise RewardError(
                f"{SOURCE}{self._payers.source_id(slot)}: the source's reward of slot {slot} is {earned[slot]} in step "
                f"{self._lengths[slot]} of its episode; nothing can be learned from that: mend its session's look()"
            )

    def _cut(self, terminated: Mask, truncated: Mask) -> Mask:
        """Truncate episodes of which the environment sees no end; returns where."""
        cut: Mask = overlong(self._lengths) & ~(terminated | truncated | self.idle) & self._cuts
        if cut.any():
            self.cut += int(cut.sum())
            truncated |= cut
            self._inner.unwrapped._autoreset_envs |= cut  # has them reset in the next step, as if they had ended
        return cut

    def _judge(self, began: Mask, going: Mask) -> tuple[NDArray[np.float64], Mask]:
        """Have every slot's version judge it where an episode began or goes on, one look for each version.

        Returns ``float64[N]`` earned and ``bool[N]`` abstained.
        """
        earned, abstained = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=bool)
        self._shown[began] = self._blank
        asked = (began | going) & ~self.idle
        for version, session in self._payers.adopt(began):
            slots = np.flatnonzero(asked & (self._payers.versions == version))
            if slots.size:
                judged = session.look(self._views.seen(session.needs, slots, began[slots]))
                earned[slots], abstained[slots] = judged.reward, judged.abstained
                if self.mix.shows is not None:
                    self._shown[slots] = judged.shown
                self.judged += slots.size
        earned[began] = 0.0
        self.abstains += int(abstained.sum())
        return earned, abstained

    @property
    def shown(self) -> NDArray[np.float32]:
        """``float32[N, S]``: what each slot's policy was shown last, which after a step that ended an episode is that
        episode's; not to be written to."""
        return self._shown

    @property
    def counts(self) -> Counter[str]:
        """``judged``, ``abstains``, ``cut``, and what the sessions counted so far (see RewardSession.counts)."""
        counts = self._payers.counts
        counts.update(judged=self.judged, abstains=self.abstains, cut=self.cut)
        return counts

    def _observe(self, observations: Any) -> Any:
        return observations if self.mix.shows is None else observed(observations, self._shown)

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
        judged = (self._payers.versions.copy(), env_rewards, abstained, success, cut)
        ours = dict(zip(JUDGED, judged, strict=True))
        everyone = np.ones(self.num_envs, dtype=bool)
        return {**infos, **ours, **{f"_{key}": everyone for key in ours}}


def _check_autoreset(env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
    # A vector environment's metadata may be one dictionary shared with others, so its own attribute goes first.
    mode = getattr(env.unwrapped, "autoreset_mode", env.metadata.get("autoreset_mode"))
    if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.NEXT_STEP.value):
        raise TaskError(
            f"{env} resets in mode {mode}; the last frame of an episode can only be judged in NEXT_STEP: build it with "
            "gymnasium.vector.SyncVectorEnv(..., autoreset_mode=AutoresetMode.NEXT_STEP)"
        )
