"""RLlib's PPO and SAC on the new API stack, with settings that suit small tasks on few cores."""

import logging
import time
from typing import Any

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from carl.config import TrainConfig
from carl.errors import ResourceError
from carl.seeding import Role, seed_of
from carl.training.learner import PPOLearner
from carl.training.replay import SAC
from carl.training.runner import SETUP, CodeRewardRunner, RunnerSetup

_ray: Any = ray  # Ray and RLlib leave what is used of these untyped
_PPOConfig: Any = PPOConfig
_SACConfig: Any = SACConfig

RESOURCE_PATIENCE_S = 15.0
"""How long to wait for CPUs that others are about to give back, such as replicas that were just told to stop."""

PROBE_S = 0.1
"""How long each iteration waits to hear that a dead runner is back; RLlib would wait until the call to it fails."""


def build(setup: RunnerSetup, train: TrainConfig) -> Algorithm:
    """The task's algorithm, ready to train; raises ResourceError rather than waiting for CPUs that never come."""
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # it warns about its own defaults
    config = configure(setup, train)
    check_resources(config)
    return config.build_algo()


def configure(setup: RunnerSetup, train: TrainConfig) -> AlgorithmConfig:
    """The RLlib configuration of ``train.algorithm``, or of the task's own choice."""
    make = {"ppo": _ppo, "sac": _sac}[train.algorithm or setup.task.algorithm]
    config: AlgorithmConfig = (
        make()
        .environment("carl", env_config={SETUP: setup})
        .env_runners(
            env_runner_cls=CodeRewardRunner,
            num_env_runners=train.env_runners,
            num_envs_per_env_runner=train.envs_per_runner,
        )
        .fault_tolerance(
            restart_failed_env_runners=True,
            delay_between_env_runner_restarts_s=1.0,
            max_num_env_runner_restarts=100,
            env_runner_health_probe_timeout_s=PROBE_S,
        )
        # RLlib adds the runner's index; from a spawned seed that meets no other run's.
        .debugging(seed=seed_of(setup.run_seed, Role.LEARNER), log_level="ERROR")
        .reporting(min_time_s_per_iteration=0)
    )
    return config


def _ppo() -> Any:
    return (
        _PPOConfig()
        .training(
            lr=1e-3,
            gamma=0.99,
            lambda_=0.95,
            train_batch_size_per_learner=2048,
            minibatch_size=512,
            num_epochs=8,
            clip_param=0.2,
            entropy_coeff=0.01,
            vf_loss_coeff=0.5,
            vf_clip_param=float("inf"),  # a clip at 10 would drop the gradient of every error above 3.2
            use_kl_loss=False,
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
        .learners(learner_class=PPOLearner)
        .framework(torch_skip_nan_gradients=True)  # the learner looks at the loss
        .rl_module(
            model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False)
        )
    )


def _sac() -> Any:
    return (
        _SACConfig(algo_class=SAC)
        .training(
            actor_lr=1e-3,
            critic_lr=1e-3,
            alpha_lr=1e-3,
            # The code reward pays a few units an episode; RLlib's 1.0 would drown it in the reward for entropy.
            initial_alpha=0.05,
            gamma=0.99,
            tau=0.005,
            train_batch_size_per_learner=256,
            num_steps_sampled_before_learning_starts=500,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 200_000},
        )
        .env_runners(rollout_fragment_length=1)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="relu"))
        .reporting(min_sample_timesteps_per_iteration=500)
    )


def check_resources(config: AlgorithmConfig, patience_s: float = RESOURCE_PATIENCE_S) -> None:
    """Raise ResourceError unless the cluster has the CPUs that ``config`` asks for, and has them free soon."""
    needed: Any = config.num_env_runners * config.num_cpus_per_env_runner
    total = _ray.cluster_resources().get("CPU", 0.0)
    advice = (
        f"{config.num_env_runners} env runners need {needed:g} CPUs; set train.env_runners to what is there "
        "(0 samples in the driver), or give the cluster more"
    )
    if needed > total:
        raise ResourceError(f"the cluster has {total:g} CPUs, but {advice}")
    deadline = time.monotonic() + patience_s
    while _ray.available_resources().get("CPU", 0.0) < needed:
        if time.monotonic() > deadline:
            free = _ray.available_resources().get("CPU", 0.0)
            raise ResourceError(f"only {free:g} of the cluster's {total:g} CPUs are free, but {advice}")
        time.sleep(0.2)
