"""What ends a training of env runners that fail, and what does not."""

import logging
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from carl.errors import BoxError, RewardError, TaskError
from carl.rewards.latch import PROGRESS
from carl.rewards.mix import Mix
from carl.training.rllib.failures import DEATHS, SETUP, RaisesReported, one_sentence, reported
from carl.training.rllib.runner import RunnerSetup
from tests.fakes.corridor import CORRIDOR
from tests.fakes.near_channel import NearChannel


class Stock:
    """RLlib's part of it."""

    def restore_env_runners(self, group):
        return ["restored"]


@dataclass
class Algorithm(RaisesReported, Stock):
    channel: NearChannel = field(default_factory=NearChannel)
    steps: int = 0
    down: int = 1

    def __post_init__(self):
        setup = RunnerSetup(CORRIDOR, Mix(shows=PROGRESS), 5, self.channel)
        self.config = SimpleNamespace(env_config={SETUP: setup}, num_envs_per_env_runner=32)
        self.metrics = SimpleNamespace(peek=lambda key, default: self.steps)

    def restore(self):
        group = SimpleNamespace(num_healthy_remote_workers=lambda: 2 - self.down, num_remote_workers=lambda: 2)
        return self.restore_env_runners(group)


def test_what_was_reported_is_raised_where_a_runner_is_down():
    algorithm = Algorithm()
    with pytest.raises(TaskError, match="broken"), reported(algorithm.channel, "runner-2"):
        raise TaskError("broken")
    with pytest.raises(TaskError, match="broken"):
        algorithm.restore()


def test_what_a_reward_source_raises_is_raised_too():
    algorithm = Algorithm()
    with pytest.raises(RewardError, match="broken"), reported(algorithm.channel, "runner-2"):
        raise RewardError("reward x: judging raised ValueError: broken")
    with pytest.raises(RewardError, match="reward x: judging raised ValueError: broken"):
        algorithm.restore()


@pytest.mark.parametrize("error", [OSError("a machine failed"), BoxError("a machine failed")], ids=["machine", "box"])
def test_what_is_not_the_tasks_is_not_reported(error):
    algorithm = Algorithm()
    with pytest.raises(type(error), match="a machine"), reported(algorithm.channel, "runner-2"):
        raise error
    assert algorithm.restore() == ["restored"]


def test_a_runner_that_dies_again_and_again_before_a_step_ends_the_training_with_its_seeds():
    algorithm = Algorithm()
    for _ in range(DEATHS):
        algorithm.channel.enroll("runner-2")
        assert algorithm.restore() == ["restored"]
    birth = algorithm.channel.enroll("runner-2")
    seed = algorithm.config.env_config[SETUP].seed(2, 0, birth)
    with pytest.raises(
        TaskError, match=rf"runner-2 ended its process {DEATHS} times .* of the seeds {seed}, \d+, \d+, \.\.\.: "
    ):
        algorithm.restore()


def test_one_that_dies_as_often_between_steps_is_survived():
    algorithm = Algorithm()
    for _ in range(3 * DEATHS):
        algorithm.channel.enroll("runner-2")
        algorithm.steps += 1
        assert algorithm.restore() == ["restored"]


@pytest.mark.parametrize(("error", "logged"), [(TaskError, []), (IndexError, ["a long traceback"])])
def test_what_rllib_logs_is_dropped_where_an_error_of_ours_says_it(error, logged, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ray.rllib"), "handlers", [caplog.handler])

    def fail():
        logging.getLogger("ray.rllib.utils.actor_manager").error("a long traceback")
        raise error

    with pytest.raises(error), one_sentence():
        fail()
    assert caplog.messages == logged
