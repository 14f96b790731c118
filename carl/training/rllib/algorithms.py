"""RLlib's PPO, APPO and SAC on the new API stack, with settings that suit small tasks on few cores."""

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from inspect import signature
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms import ppo
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from carl.broadcast.channel import ChannelClient
from carl.cluster.resources import Need, room_for
from carl.config import TrainConfig
from carl.errors import ConfigError, ResourceError, TaskError, did_you_mean
from carl.rewards.mix import Mix
from carl.seeding import Role, seed_of
from carl.task import Task
from carl.training.rllib.appo import APPO, APPOLearner
from carl.training.rllib.failures import SETUP, RaisesReported, one_sentence, raise_reported, raise_unimportable
from carl.training.rllib.learner import PPOLearner
from carl.training.rllib.network import PPONetworks, SACNetworks
from carl.training.rllib.replay import SAC, SACLearner
from carl.training.rllib.runner import PaidRunner, RunnerSetup, check_actions
from carl.training.rllib.spaces import Actions, Observations

_PPO: Any = ppo.PPO  # RLlib leaves these untyped
_PPOConfig: Any = ppo.PPOConfig
_APPOConfig: Any = APPOConfig
_SACConfig: Any = SACConfig

OPTIONS = ("training", "env_runners", "learners", "rl_module", "fault_tolerance", "reporting", "framework", "debugging")
"""Methods of AlgorithmConfig that a user may call through ``train.rllib``."""

FIELDS = {
    "num_env_runners": "train.env_runners",
    "num_envs_per_env_runner": "train.envs_per_runner",
    "num_cpus_per_env_runner": "train.cpus_per_runner",
    "num_gpus_per_env_runner": "train.gpus_per_runner",
    "num_learners": "train.learners",
    "num_gpus_per_learner": "train.gpus_per_learner",
    "seed": "seed",
}
"""Arguments that have fields of their own."""

OURS = (
    "env_runner_cls",
    "learner_class",
    "env_to_module_connector",
    "module_to_env_connector",
    "shuffle_batch_per_epoch",
)
"""Arguments that carl itself must set, or whose effect its env runner does not have."""

PROBE_S = 0.1
"""How long each iteration waits to hear that a dead runner is back; RLlib would wait until the call to it fails."""


class PPO(RaisesReported, _PPO):  # type: ignore[misc]
    """RLlib's."""


def build(setup: RunnerSetup, train: TrainConfig) -> Algorithm:
    """The task's algorithm, ready to train; raises ResourceError where the processes do not fit the cluster, and
    TaskError for what the task's code raises."""
    config = configure(setup, train)
    _check_driver(config)
    with room_for(needs_of(config)), one_sentence():
        try:
            return config.build_algo()
        except Exception:  # RLlib's, in several wordings, where an env runner could not be built
            raise_reported(setup.channel)
            if train.env_runners:
                raise_unimportable(setup.task)
            raise


def configure(setup: RunnerSetup, train: TrainConfig) -> AlgorithmConfig:
    """The RLlib configuration of ``train.algorithm``; raises ConfigError."""
    for name in ("ray", "ray.rllib"):  # they warn about RLlib's own defaults
        logging.getLogger(name).setLevel(logging.ERROR)
    config: AlgorithmConfig = (
        _tuned(train.algorithm)
        .environment("carl", env_config={SETUP: setup})
        .env_runners(
            env_runner_cls=PaidRunner,
            num_env_runners=train.env_runners,
            num_envs_per_env_runner=train.envs_per_runner,
            num_cpus_per_env_runner=train.cpus_per_runner,
            num_gpus_per_env_runner=train.gpus_per_runner,
        )
        .learners(num_learners=train.learners, num_gpus_per_learner=train.gpus_per_learner)
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
    return apply(config, train.rllib)


def untrained(task: Task, train: TrainConfig, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> Any:
    """The RLModule that a training of ``task`` begins with, for the environment's spaces; raises TaskError for spaces
    that the algorithm does not take, and ConfigError."""
    config: Any = configure(RunnerSetup(task, Mix(), 0, ChannelClient("none")), train)
    actions = Actions(action_space)
    check_actions(config, actions)
    spec = config.get_rl_module_spec(spaces={DEFAULT_MODULE_ID: (Observations(observation_space).space, actions.space)})
    try:
        return spec.build()
    except Exception as error:  # RLlib's, in several wordings; a model_config may not suit pictures of this size
        raise TaskError(
            f"task {task.name!r}: no network of {config.algo_class.__name__} sees {observation_space} and acts in "
            f"{action_space}: {error}"
        ) from error


def needs_of(config: AlgorithmConfig) -> list[Need]:
    """The processes that RLlib starts for ``config``."""
    rllib: Any = config
    gpus = rllib.num_gpus_per_learner
    cpus = rllib.num_cpus_per_learner
    aggregators = rllib.num_learners * rllib.num_aggregator_actors_per_learner
    return [
        Need(
            "env runner",
            rllib.num_env_runners,
            {"CPU": rllib.num_cpus_per_env_runner, "GPU": rllib.num_gpus_per_env_runner}
            | rllib.custom_resources_per_env_runner,
            "train.env_runners (0 samples in the driver), cpus_per_runner or gpus_per_runner",
        ),
        Need(
            "learner",
            rllib.num_learners,
            {"CPU": (0 if gpus else 1) if cpus == "auto" else cpus, "GPU": gpus}
            | (rllib.custom_resources_per_learner or {}),
            "train.learners (0 learns in the driver) or gpus_per_learner",
        ),
        Need("aggregator", aggregators, {"CPU": 1}, "learners.num_aggregator_actors_per_learner in train.rllib"),
    ]


def _check_driver(config: AlgorithmConfig) -> None:
    """A learner in the driver uses the driver's own GPU, which Ray does not hand out."""
    rllib: Any = config
    if not rllib.num_learners and rllib.num_gpus_per_learner and not torch.cuda.is_available():
        raise ResourceError(
            f"train.gpus_per_learner={rllib.num_gpus_per_learner:g} without train.learners learns in the driver, "
            "which sees no GPU: set train.learners=1, so that a node with a GPU learns"
        )


def apply(config: AlgorithmConfig, settings: Mapping[str, Mapping[str, Any]]) -> AlgorithmConfig:
    """``config`` with RLlib's own ``settings``, arguments by method; raises ConfigError for what it does not have."""
    for method, arguments in settings.items():
        where = f"train.rllib.{method}"
        if method not in OPTIONS:
            near = did_you_mean(method, OPTIONS) or ";"
            raise ConfigError(f"{where} cannot be set{near} there are {', '.join(OPTIONS)}")
        for name in arguments:
            if name in FIELDS or name in OURS:
                raise ConfigError(f"{where}.{name}: " + (f"set {FIELDS[name]}" if name in FIELDS else "is carl's own"))
            if name not in _arguments(config, method):
                raise ConfigError(f"{where} has no {name}{_meant(config, method, name)}")
        try:
            if (arguments.get("model_config") or {}).get("use_lstm"):
                raise ValueError("use_lstm: carl's env runner keeps no state between steps")
            getattr(config, method)(**_with_our_network(config, arguments))
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigError(f"{where} cannot be used: {error}") from error
    try:
        rllib: Any = config
        rllib.copy(copy_frozen=False).validate()
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"RLlib refuses the settings of this training: {error}") from error
    return config


def _arguments(config: AlgorithmConfig, method: str) -> set[str]:
    """The keyword arguments of a method of ``config``, those of its base classes included."""
    own = (vars(kind)[method] for kind in type(config).__mro__ if method in vars(kind))
    return {
        one.name for function in own for one in signature(function).parameters.values() if one.kind is one.KEYWORD_ONLY
    }


def _meant(config: AlgorithmConfig, method: str, name: str) -> str:
    elsewhere = [other for other in OPTIONS if name in _arguments(config, other)]
    if elsewhere:
        return f"; it belongs to train.rllib.{elsewhere[0]}"
    return did_you_mean(name, _arguments(config, method) - {*FIELDS, *OURS})


def _with_our_network(config: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments``; what a ``model_config`` among them leaves open stays as it was."""
    changes = arguments.get("model_config")
    for name in changes or ():
        known = [field.name for field in fields(DefaultModelConfig)]
        if name not in known:
            raise ValueError(f"model_config has no {name}{did_you_mean(name, known)}")
    return dict(arguments) | ({"model_config": replace(config._model_config, **changes)} if changes else {})


def check(train: TrainConfig) -> None:
    """Raise ConfigError for settings in ``train`` that RLlib does not understand."""
    apply(_tuned(train.algorithm), train.rllib)


def _tuned(algorithm: str) -> Any:
    config = {"ppo": _ppo, "appo": _appo, "sac": _sac}[algorithm]()
    # Our learners look at all gradients. This setting of Ray 2.60.0 skips RLlib's own look at each; it is documented to
    # skip the update instead.
    return config.framework(torch_skip_nan_gradients=True)


def _ppo() -> Any:
    return (
        _PPOConfig(algo_class=PPO)
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
        .rl_module(
            rl_module_spec=RLModuleSpec(catalog_class=PPONetworks),
            model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False),
        )
    )


def _appo() -> Any:
    return (
        _APPOConfig(algo_class=APPO)
        .training(
            lr=1e-3,
            gamma=0.99,
            # Every runner's fragments of 16 steps in 32 environments are one batch, of which four gradients are taken.
            train_batch_size_per_learner=512,
            circular_buffer_num_batches=4,
            circular_buffer_iterations_per_batch=4,
            target_network_update_freq=0.25,
            clip_param=0.2,
            entropy_coeff=0.01,
            vf_loss_coeff=0.5,
            grad_clip=0.5,
            grad_clip_by="global_norm",
            timeout_s_sampler_manager=0.02,  # without a pause it polls with all of a core
        )
        .env_runners(rollout_fragment_length=16)
        .learners(learner_class=APPOLearner)
        .rl_module(
            rl_module_spec=RLModuleSpec(catalog_class=PPONetworks),
            model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False),
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
            store_buffer_in_checkpoints=True,
        )
        .learners(learner_class=SACLearner)
        .env_runners(rollout_fragment_length=1)
        .rl_module(
            rl_module_spec=RLModuleSpec(catalog_class=SACNetworks),
            model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="relu"),
        )
        .reporting(min_sample_timesteps_per_iteration=500)
    )
