"""The env runner: RLlib's single-agent one over environments that a RewardSource pays."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from carl.errors import ResourceError
from carl.rewards.vector import CodeReward, Mix
from carl.seeding import Role, seed_of
from carl.task import Task
from carl.training.channel import ChannelClient

logger = logging.getLogger(__name__)

SETUP = "carl"
"""Key of the RunnerSetup in RLlib's ``env_config``."""


@dataclass(frozen=True)
class RunnerSetup:
    """What a runner needs to build its environments; travels in the algorithm's configuration.

    ``generation`` counts the starts of this training: a resumed one plays other episodes than its first start.
    """

    task: Task
    mix: Mix
    run_seed: int
    channel: ChannelClient
    generation: int = 0


def one_thread() -> None:
    """Keep torch and cv2 from starting threads of their own; cv2 does whatever OMP_NUM_THREADS says."""
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


class SmallInfos(gym.vector.VectorWrapper):
    """Hands RLlib one dictionary per slot, with what CodeReward measured and nothing else: RLlib stores infos."""

    def reset(self, **kwargs: Any) -> tuple[Any, list[dict[str, Any]]]:  # type: ignore[override]  # RLlib wants a list
        observations, infos = self.env.reset(**kwargs)
        return observations, _small(infos)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, list[dict[str, Any]]]:  # type: ignore[override]  # as above
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        return observations, rewards, terminated, truncated, _small(infos)


def _small(infos: dict[str, Any]) -> list[dict[str, Any]]:
    columns = (infos[key].tolist() for key in ("reward_version", "abstained", "env_reward", "success"))
    return [
        {"reward_version": version, "abstained": abstained, "env_reward": env_reward, "success": success}
        for version, abstained, env_reward, success in zip(*columns, strict=True)
    ]


class CodeRewardRunner(SingleAgentEnvRunner):
    """Samples from task environments; asks the channel for the reward when built and before it samples.

    A runner that RLlib restarted comes back with its first configuration. That names the channel, not the source,
    so it comes back with the current reward too. It has no weights until someone sends them: see ``has_weights``.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        one_thread()
        self.has_weights = False
        self._code_reward: CodeReward | None = None
        super().__init__(config=config, **kwargs)

    def make_env(self) -> None:
        """Build the environments, paid by the channel's current source; raises CarlError."""
        if self.env is not None:
            self.env.close()
        setup: RunnerSetup = self.config.env_config[SETUP]
        self._setup, self._name = setup, f"runner-{self.worker_index or 0}"
        self._birth = setup.channel.enroll(self._name)
        self.num_envs = self.config.num_envs_per_env_runner
        envs = SyncVectorEnv([setup.task.make] * self.num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._code_reward = CodeReward(envs, setup.task, mix=setup.mix)
        self.env = SmallInfos(self._code_reward)
        self._needs_initial_reset = True
        self._pull()

    def sample(self, **kwargs: Any) -> list[Any]:
        """As RLlib's, after pulling the current reward. A channel that is gone leaves the last one in charge."""
        try:
            self._pull()
        except ResourceError as error:
            logger.error("%s keeps reward version %d: %s", self._name, self.version, error)
        episodes: list[Any] = super().sample(**kwargs)
        self._measure(episodes)
        return episodes

    @property
    def version(self) -> int:
        """The reward version that slots adopt at their next episode start."""
        return self._code_reward.version if self._code_reward else 0

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.has_weights |= COMPONENT_RL_MODULE in state

    def _pull(self) -> None:
        assert self._code_reward is not None
        if not self._setup.mix.looks:
            return
        newer = self._setup.channel.newer_than(self.version)
        if newer:
            self._code_reward.set_source(*newer)
            self._setup.channel.acknowledge(self._name, self.version)

    def _try_env_reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """As RLlib's, but with a spawned seed for each slot in place of seed + runner + slot."""
        seeds: Any = None if seed is None else [self._seed_of_slot(slot) for slot in range(self.num_envs)]
        return super()._try_env_reset(seed=seeds, options=options)

    def _seed_of_slot(self, slot: int) -> int:
        runner, setup = self.worker_index or 0, self._setup
        return seed_of(setup.run_seed, Role.TRAINING, runner, slot, setup.generation, self._birth)

    def _measure(self, episodes: Collection[Any]) -> None:
        ended = [episode for episode in episodes if episode.is_done]
        # An episode cut by the last sample() begins with the info it ended with then, which was counted.
        abstains = sum(info["abstained"] for episode in episodes for info in episode.get_infos()[1:])
        for key, value in (
            ("abstains", abstains),
            ("ended", len(ended)),
            ("succeeded", sum(episode.get_infos(-1)["success"] for episode in ended)),
        ):
            self.metrics.log_value(key, value, reduce="sum")
        self.metrics.log_value("reward_version", self.version, reduce="max", window=1)
