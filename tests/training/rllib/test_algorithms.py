import sys
from dataclasses import replace
from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest
from pydantic import ValidationError
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from carl.broadcast.channel import ChannelClient
from carl.config import TrainConfig
from carl.errors import ConfigError, ResourceError, TaskError
from carl.methods.code import CodeConfig
from carl.rewards.latch import PROGRESS
from carl.rewards.mix import Mix
from carl.runs.resolve import resolved
from carl.training.rllib.algorithms import build, configure, needs_of
from carl.training.rllib.replay import look_at_memory
from carl.training.rllib.runner import RunnerSetup
from tests.fakes.corridor import CORRIDOR, STEERED, Corridor

pytestmark = pytest.mark.usefixtures("ray_cluster")


def setup(task=CORRIDOR, run_seed: int = 0) -> RunnerSetup:
    return RunnerSetup(task, Mix(shows=PROGRESS), run_seed, ChannelClient("nobody"))


def test_more_runners_than_cpus_is_an_error_that_says_what_to_set():
    wanted = r"5 env runners \(1 CPU each\), 5 CPUs in all: after 2 of them .* Set train\.env_runners"
    with pytest.raises(ResourceError, match=wanted):
        build(setup(), TrainConfig(env_runners=5))


def test_learners_aggregators_and_parts_of_gpus_are_counted():
    train = TrainConfig(
        env_runners=4,
        cpus_per_runner=2,
        gpus_per_runner=0.125,
        learners=2,
        gpus_per_learner=0.5,
        algorithm="appo",
        rllib={"learners": {"num_aggregator_actors_per_learner": 3}},
    )
    needs = [(need.count, need.each) for need in needs_of(configure(setup(), train))]
    assert needs == [(4, {"CPU": 2, "GPU": 0.125}), (2, {"CPU": 0, "GPU": 0.5}), (6, {"CPU": 1})]


def test_a_learner_in_the_driver_needs_the_drivers_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ResourceError, match=r"sees no GPU: set train\.learners=1"):
        build(setup(), TrainConfig(env_runners=0, gpus_per_learner=1))


def test_the_task_chooses_the_algorithm_unless_the_user_does():
    def chosen(**given: str) -> str:
        config = resolved(CodeConfig(task="steered", train=TrainConfig(**given)), STEERED)
        return configure(setup(STEERED), config.train).algo_class.__name__

    assert (chosen(), chosen(algorithm="ppo")) == ("SAC", "PPO")
    assert configure(setup(), TrainConfig(algorithm="appo")).algo_class.__name__ == "APPO"


def test_appo_without_runners_is_refused():
    with pytest.raises(ValidationError, match="set env_runners to 1 or more"):
        TrainConfig(algorithm="appo", env_runners=0)


def test_rllib_is_told_its_own_settings():
    told = {
        "training": {"lr": 0.0003, "num_epochs": 3},
        "env_runners": {"sample_timeout_s": 7.0},
        "rl_module": {"model_config": {"fcnet_hiddens": [32]}},
    }
    config = configure(setup(), TrainConfig(rllib=told))
    assert (config.lr, config.num_epochs, config.sample_timeout_s) == (0.0003, 3, 7.0)
    assert config.clip_param == 0.2, "what is not told stays"
    assert config.model_config["fcnet_hiddens"] == [32]
    assert config.model_config["fcnet_activation"] == "tanh"


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("trainning", {}, r"train\.rllib\.trainning cannot be set; did you mean training\? there are training, "),
        ("environment", {"env": "CartPole-v1"}, r"train\.rllib\.environment cannot be set"),
        ("training", {"learning_rate": 1}, r"train\.rllib\.training has no learning_rate"),
        ("training", {"gama": 1}, r"has no gama; did you mean gamma\?"),
        (
            "training",
            {"rollout_fragment_length": 8},
            r"no rollout_fragment_length; it belongs to train\.rllib\.env_runners",
        ),
        ("rl_module", {"model_config": {"layers": 3}}, "model_config has no layers"),
        ("rl_module", {"model_config": {"fcnet_hidens": [3]}}, r"no fcnet_hidens; did you mean fcnet_hiddens\?"),
        ("env_runners", {"num_env_runners": 3}, r"env_runners\.num_env_runners: set train\.env_runners"),
        ("env_runners", {"env_runner_cls": "mine"}, r"env_runner_cls: is carl's own"),
        ("training", {"minibatch_size": 100_000}, "RLlib refuses the settings"),
        ("training", {"shuffle_batch_per_epoch": False}, r"shuffle_batch_per_epoch: is carl's own"),
        ("rl_module", {"model_config": {"use_lstm": True}}, "keeps no state between steps"),
    ],
)
def test_settings_that_rllib_does_not_have_are_refused(method, arguments, message):
    with pytest.raises(ConfigError, match=message):
        configure(setup(), TrainConfig(rllib={method: arguments}))


def test_neighbouring_runs_and_runners_do_not_share_seeds():
    seeds = {configure(setup(run_seed=run), TrainConfig()).seed + runner for run in range(20) for runner in range(20)}
    assert len(seeds) == 400


def test_an_algorithm_that_a_task_misspells_is_answered_with_the_nearest():
    task = replace(CORRIDOR, defaults={"train.algorithm": "pppo"})
    with pytest.raises(TaskError, match=r"'pppo' is not one of ppo, appo, sac; did you mean ppo\?"):
        resolved(CodeConfig(task="corridor"), task)


def test_a_task_that_rays_processes_cannot_import_is_an_error_that_says_so(monkeypatch):
    module = ModuleType("of_this_process_alone")
    module.Here = type("Here", (Corridor,), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def build_algo(config):
        raise IndexError("list index out of range")

    monkeypatch.setattr(AlgorithmConfig, "build_algo", build_algo)
    with pytest.raises(
        TaskError, match=r"cannot import .*of_this_process_alone.*: install .* or run carl in the folder"
    ):
        build(setup(replace(CORRIDOR, make=module.Here)), TrainConfig(env_runners=1))
    with pytest.raises(IndexError):
        build(setup(), TrainConfig(env_runners=1))


def test_a_replay_buffer_that_outgrows_half_of_the_memory_is_warned_of(monkeypatch, caplog):
    monkeypatch.setattr("carl.training.rllib.replay._available_memory", lambda: 1_000_000)
    pictures = gym.spaces.Box(0, 255, (1_000,), np.uint8)
    look_at_memory(500, pictures)
    assert not caplog.records
    look_at_memory(2_000, pictures)
    assert "grows to 2 MB" in caplog.text
    assert "train.rllib={training: {replay_buffer_config: {capacity: 500}}}" in caplog.text
    config = configure(
        setup(STEERED), TrainConfig(algorithm="sac", rllib={"training": {"replay_buffer_config": {"capacity": 500}}})
    ).replay_buffer_config
    assert (config["capacity"], config["type"]) == (500, "EpisodeReplayBuffer")
