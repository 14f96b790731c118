"""The env runner: RLlib's single-agent one over environments that a RewardSource pays, sampling by column."""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env.env_runner import ENV_STEP_FAILURE
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import ENV_STEP_TIMER

from carl.broadcast.channel import ChannelClient
from carl.broadcast.follower import Follower
from carl.broadcast.versions import VERSION
from carl.cluster import logs
from carl.errors import TaskError
from carl.rewards.mix import Mix
from carl.rewards.vector import PaidVectorEnv
from carl.seeding import Role, seed_of
from carl.task import Task, blaming
from carl.training.rllib.acting import choose
from carl.training.rllib.failures import SETUP, reported
from carl.training.rllib.fragment import Columns, Fragment, Ongoing
from carl.training.rllib.paid import PAID_BY, paid_by
from carl.training.rllib.spaces import Actions, Observations

logger = logging.getLogger(__name__)

MEASURED = (VERSION, "success")
"""Infos of PaidVectorEnv about each step that episodes keep, as ``custom_data``."""

COUNTS = "reward"
"""Key in RLlib's metrics of what PaidVectorEnv counts, such as abstains."""


@dataclass(frozen=True)
class RunnerSetup:
    """What a runner needs to build its environments; travels in the algorithm's configuration.

    ``generation`` counts the starts of this training: a resumed one plays other episodes than its first start.
    ``origin`` is what the runner's log records are labelled with, as the driver's are.
    """

    task: Task
    mix: Mix
    run_seed: int
    channel: ChannelClient
    generation: int = 0
    origin: Mapping[str, str] = field(default_factory=logs.origin)

    def seed(self, runner: int, slot: int, birth: int) -> int:
        """Of the first episode of ``slot`` in env runner number ``runner``, which was built ``birth`` times before."""
        return seed_of(self.run_seed, Role.TRAINING, runner, slot, self.generation, birth)


def one_thread() -> None:
    """Keep torch and cv2 from starting threads of their own; cv2 ignores OMP_NUM_THREADS.

    With two, small networks learn a seventh faster on two idle cores, and fifty times slower on busy ones, where
    OpenMP's threads wait for each other by spinning.
    """
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def check_actions(config: Any, actions: Actions) -> None:
    """Raise TaskError if the algorithm of ``config`` cannot draw ``actions``."""
    drawn = actions.space
    if config.algo_class.__name__ != "SAC" or isinstance(drawn, gym.spaces.Discrete):
        return
    if not (isinstance(drawn, gym.spaces.Box) and actions.bounded):
        raise TaskError(
            f"sac acts by one choice, or by numbers that are bounded on both sides, and not in {actions.original}: set "
            "train.algorithm=ppo"
        )


class PaidRunner(SingleAgentEnvRunner):
    """Samples from task environments; takes the reward from the channel when built and before it samples.

    A new version is acknowledged when it stands ready: every episode that starts from the next vector step on is paid
    by it. One that cannot be opened is refused, and the runner goes on with what it has.

    A runner that RLlib restarted comes back with its first configuration. That names the channel, not the source,
    so it comes back with the current reward too. It has no weights until the driver sends them: see ``has_weights``.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        one_thread()
        self.has_weights = False
        self._paid: PaidVectorEnv | None = None
        self._follower: Follower | None = None
        super().__init__(config=config, **kwargs)

    def make_env(self) -> None:
        """Build the environments, paid by the channel's current source; raises what opening the only source raises."""
        self._end()
        setup: RunnerSetup = self.config.env_config[SETUP]
        logs.join(setup.origin)
        self._setup, self._name = setup, f"runner-{self.worker_index or 0}"
        self._birth = setup.channel.enroll(self._name)
        self.num_envs = self.config.num_envs_per_env_runner
        with reported(setup.channel, self._name):
            with self._blaming("the making"):
                envs = SyncVectorEnv([setup.task.make] * self.num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
            self.env = self._paid = PaidVectorEnv(envs, setup.task, mix=setup.mix)
            self._observations = Observations(self.env.single_observation_space)
            self._actions = Actions(envs.single_action_space)
            check_actions(self.config, self._actions)
        self._counted: Counter[str] = Counter()
        self._needs_initial_reset = True
        if setup.mix.looks:
            self._follower = Follower(setup.channel, self._name, self._paid.set_source)
            self._follower.begin()
            self._follower.listen()

    def get_spaces(self) -> dict[str, Any]:
        """As RLlib's; modules see packed observations and draw from the spaces of Actions."""
        spaces: dict[str, Any] = super().get_spaces()  # type: ignore[no-untyped-call]
        if self.env is not None:
            spaces[DEFAULT_MODULE_ID] = self._observations.space, self._actions.space
        return spaces

    def make_module(self) -> None:
        """As RLlib's; the module stays in evaluation mode, which RLlib sets and unsets around every call otherwise."""
        super().make_module()  # type: ignore[no-untyped-call]
        module: Any = self.module
        module.eval()

    def stop(self) -> None:
        """As RLlib's, but what goes wrong is only logged: RLlib lets an actor whose function raises sleep first."""
        try:
            self._end()
        except Exception:  # closing runs the task's code; whatever that does, this runner is at its end
            logger.exception("%s did not close its environments", self._name)

    def _end(self) -> None:
        """Stop following the channel and close the environments, if there are any."""
        if self._follower is not None:
            self._follower.close()
        if self.env is not None:
            self.env.close()

    def sample(self, **kwargs: Any) -> list[Any]:
        """As RLlib's, after pulling the current reward. If the channel is gone, the last one stays."""
        if self._follower is not None:
            self._follower.pull()
        with reported(self._setup.channel, self._name):
            episodes: list[Any] = super().sample(**kwargs)
        return episodes

    @property
    def version(self) -> int:
        """The reward version that slots adopt at their next episode start."""
        return self._paid.version if self._paid else 0

    def set_state(self, state: dict[str, Any]) -> None:
        """As RLlib's; ``has_weights`` from the first state with weights on."""
        super().set_state(state)
        self.has_weights |= COMPONENT_RL_MODULE in state

    def _try_env_reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """As RLlib's, but with a spawned seed for each slot in place of seed + runner + slot."""
        seeds: Any = (
            None
            if seed is None
            else [self._setup.seed(self.worker_index or 0, slot, self._birth) for slot in range(self.num_envs)]
        )
        with self._blaming("a reset"):
            return super()._try_env_reset(seed=seeds, options=options)

    def _try_env_step(self, actions: Any) -> Any:
        """As RLlib's, but what the task's code raises is the task's, unless failed environments are to be made anew."""
        rllib: Any = super()
        if self.config.restart_failed_sub_environments:
            return rllib._try_env_step(actions)
        assert self.env is not None
        with self._blaming("a step"), self.metrics.log_time(ENV_STEP_TIMER):
            results = self.env.step(actions)
        rllib._log_env_steps(metric=self._metrics_num_try_env_step, num_steps=1)
        return results

    def _blaming(self, doing: str) -> AbstractContextManager[None]:
        return blaming(self._setup.task, f"{doing} of {self._name}")

    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[Any]:
        """As RLlib's, by column. It has no connectors but RLlib's own, and does here what they do."""
        rllib: Any = self  # it leaves this method untyped
        if force_reset or num_episodes is not None or self._needs_initial_reset:
            self._begin()
        fragment = Fragment(self._ongoing)
        while fragment.steps < num_timesteps if num_timesteps is not None else fragment.episodes < (num_episodes or 0):
            actions, columns = self._random() if random_actions else self._decide(fragment, explore=explore)
            result = rllib._try_env_step(actions)
            if result == ENV_STEP_FAILURE:
                self._begin()
                fragment = Fragment(self._ongoing)
                continue
            observations, rewards, terminated, truncated, infos = result
            more = {"rewards": rewards, "weights_seq_no": np.full(self.num_envs, self._weights_seq_no)}
            notes = {key: infos[key] for key in MEASURED}
            seen, now = self._observations.pack(observations), time.perf_counter()
            fragment.add(seen, terminated, truncated, now, {**columns, **more}, notes)
        self._needs_initial_reset = num_episodes is not None
        return self._close(fragment, num_episodes)

    def _begin(self) -> None:
        """Reset all environments; only the first time with seeds."""
        observations, _ = self._try_env_reset(seed=self._seed if self._needs_initial_reset else None)
        self._needs_initial_reset = False
        self._ongoing = Ongoing.begin(self._observations.pack(observations), time.perf_counter())

    def _random(self) -> tuple[Any, Columns]:
        """Random actions for the environment, and the column of these."""
        assert self.env is not None
        actions = self.env.action_space.sample()
        return actions, {"actions": actions}

    def _decide(self, fragment: Fragment, *, explore: bool) -> tuple[Any, Columns]:
        """The module's actions for the latest observations, as the environment takes them, and columns of its outputs.

        A module acts in [-1, 1] where actions are continuous, and learns from what it drew there.
        """
        runners = self.config.num_env_runners or 1
        steps = (self.num_env_steps_sampled_lifetime // runners + fragment.steps) * runners
        chosen = choose(
            self.module, self._actions, fragment.observations, greedy=not explore, device=self._device, t=steps
        )
        return chosen.actions, chosen.columns()

    def _close(self, fragment: Fragment, most: int | None) -> list[Any]:
        """The fragment's episodes, or only the ended ones and ``most`` of them; log what RLlib logs, and our counts."""
        rllib: Any = self  # it leaves these methods untyped
        episodes, ended = fragment.close()
        if most is not None:
            ended = ended[:most]
            episodes = episodes[: len(ended)]
        for one in ended:
            rllib._log_episode_metrics(*one)
        rllib._log_env_steps(metric=rllib._metrics_num_env_steps_sampled, num_steps=fragment.steps)
        rllib._increase_sampled_metrics(fragment.steps, len(ended))
        counts = {
            "ended": len(ended),
            "succeeded": sum(int(episode.custom_data["success"][-1]) for episode in episodes[: len(ended)]),
        }
        for key, value in counts.items():
            self.metrics.log_value(key, value, reduce="sum")
        for key, value in self._new_counts().items():
            self.metrics.log_value((COUNTS, key), value, reduce="sum")
        for version, steps in paid_by(episodes).items():
            self.metrics.log_value((PAID_BY, str(version)), steps, reduce="sum")
        self.metrics.log_value("reward_version", self.version, reduce="max", window=1)
        return episodes

    def _new_counts(self) -> Counter[str]:
        assert self._paid is not None
        before, self._counted = self._counted, self._paid.counts
        news = {key: count - before[key] for key, count in self._counted.items()}
        return Counter({key: count for key, count in news.items() if count or key not in before})
