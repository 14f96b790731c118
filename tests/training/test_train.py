import json
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import psutil
import pytest
from gymnasium.wrappers import TimeLimit, TransformReward

from carl.artefacts import LIVE
from carl.broadcast.channel import ChannelClient, reward_channel
from carl.config import EvaluationConfig, TrainConfig
from carl.episodes.trajectory import TrajectoryStore
from carl.errors import ConfigError, TaskError
from carl.program import RewardProgram
from carl.rewards.latch import PROGRESS
from carl.rewards.mix import Mix
from carl.rewards.program import ProgramReward
from carl.rewards.source import Judged, Need
from carl.seeding import Role
from carl.task import Task, rewarded_end
from carl.tasks import get_task
from carl.training.checkpoint import ALGORITHM, STATE, Checkpoints
from carl.training.evaluation import Evaluator, play
from carl.training.final import examine
from carl.training.rllib.algorithms import build
from carl.training.rllib.control import (
    acting_module,
    begin_anew,
    has_weights,
    send_weights_to_the_restarted,
    weights_of,
)
from carl.training.rllib.paid import trained_on
from carl.training.rllib.replay import VersionedPrioritizedReplayBuffer
from carl.training.rllib.runner import RunnerSetup
from carl.training.teacher import Anew
from carl.training.train import train as train_with
from carl.training.training import Training
from tests.fakes.corridor import CORRIDOR, DEADLY, STEERED, Corridor, Furthest, Shut, SteeredCorridor

pytestmark = pytest.mark.usefixtures("ray_cluster")

SMALL = {"training": {"train_batch_size_per_learner": 1_024, "minibatch_size": 256}}
"""Half of PPO's batches: as many updates in half of the steps."""

HERE = TrainConfig(env_runners=0, envs_per_runner=8, env_steps=4_096, evaluate_every=1, checkpoint_every=1, rllib=SMALL)
"""Sampling in this process, which spares the tests the start of others."""


SOON = {
    "training": {"num_steps_sampled_before_learning_starts": 200, "train_batch_size_per_learner": 128},
    "reporting": {"min_sample_timesteps_per_iteration": 250},
}
"""SAC that learns after fewer steps, from fewer of them at a time."""


def never(reward, terminated, truncated, info) -> bool:
    return False


train = partial(train_with, evaluator=Evaluator(workers=0))


def teacher(after) -> SimpleNamespace:
    """What ``after`` returns of an iteration is published."""
    return SimpleNamespace(after=after)


@pytest.fixture
def channels(monkeypatch) -> list[ChannelClient]:
    """The channels that trainings open."""
    opened = []

    @contextmanager
    def remembered(version):
        with reward_channel(version) as channel:
            opened.append(channel)
            yield channel

    monkeypatch.setattr("carl.training.train.reward_channel", remembered)
    return opened


def training(directory: Path, task: Task = CORRIDOR, config: TrainConfig = HERE, **changes) -> Training:
    settings = {"source": Furthest(), "mix": Mix(shows=PROGRESS), "run_seed": 3} | changes
    evaluation = EvaluationConfig(curve_episodes=8, episodes=20)
    return Training(task=task, directory=directory, train=config, evaluation=evaluation, **settings)


def curve(run: Training) -> list[dict]:
    return [json.loads(line) for line in run.curve.read_text().splitlines()]


def test_ppo_learns_the_corridor_and_says_how(tmp_path):
    run = training(tmp_path)
    told = []
    trained = train(run, progress=lambda label, done, total=None: told.append((label, done, total)))
    points = curve(run)
    assert trained.progressed.env_steps >= 4_096
    assert [point["env_steps"] for point in points] == sorted(point["env_steps"] for point in points)
    assert points[-1]["success_rate"] == 1.0
    assert points[-1]["mean_length"] < points[0]["mean_length"]
    assert points[-1]["reward_version"] == 1
    assert (points[-1]["abstains"], points[-1]["cut"]) == (0, 0)
    assert 0 < points[-1]["seconds"] <= trained.progressed.seconds + 1e-3
    assert told[-1] == ("training", 4_096, 4_096)
    final = Evaluator(workers=0).evaluate(run.exam, trained.policy, Role.EVALUATION, 20, greedy=True)
    assert (final.episodes, final.success_rate, final.mean_length) == (20, 1.0, 4.0)
    again = train(run)
    assert again == trained, "a training that is finished is not begun again"


class _Parts(Corridor):
    """The corridor seen in a picture and a number, and walked by one of two actions with a force that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        picture = gym.spaces.Box(0, 255, (5, 10, 3), np.uint8)
        force = gym.spaces.Box(-3, 3, (2,), np.float64)
        self.observation_space = gym.spaces.Dict(picture=picture, steps=gym.spaces.Discrete(50, start=1))
        self.action_space = gym.spaces.Dict(move=gym.spaces.Discrete(2, start=5), force=force)

    def step(self, action):
        assert action in self.action_space
        return super().step(action["move"] - 5)

    def _observation(self):
        picture = np.zeros((5, 10, 3), np.uint8)
        picture[:, 2 * min(self.position, self.length)] = 255
        return {"picture": picture, "steps": self.steps + 1}


def test_pictures_and_actions_of_parts_are_learned_from_evaluated_and_recorded(tmp_path):
    run = training(tmp_path, task=replace(CORRIDOR, make=_Parts), config=HERE.model_copy(update={"evaluate_every": 9}))
    train(run)
    outcome = examine(run, Evaluator(workers=0))
    assert outcome["filmed"]
    assert outcome["greedy"]["success_rate"] == 1.0
    (episode,) = TrajectoryStore(tmp_path / "episode").read()
    force, move = episode.actions[:, :2], episode.actions[:, 2]
    assert set(move.tolist()) <= {5.0, 6.0}
    assert np.abs(force).max() <= 3.0


class _Dark(Corridor):
    """A corridor that cannot be filmed."""

    def render(self):
        raise NotImplementedError


@dataclass(frozen=True)
class _Nothing:
    """Pays nothing for what it needs."""

    needs: frozenset[Need] = frozenset({Need.OBSERVATIONS})
    shows = None
    id = "nothing"
    counts: dict[str, int] = field(default_factory=dict)

    def open(self, slots):
        return self

    def look(self, seen):
        rows = len(seen.slots)
        return Judged(np.zeros(rows), np.zeros((rows, 0), np.float32), np.zeros(rows, bool))

    def close(self):
        pass


def test_what_cannot_be_filmed_is_trained_and_examined_without_an_episode(tmp_path, caplog):
    run = training(
        tmp_path,
        task=replace(CORRIDOR, make=_Dark),
        config=HERE.model_copy(update={"env_steps": 1_024}),
        source=_Nothing(),
        mix=Mix(env=1.0),
    )
    train(run)
    outcome = examine(run, Evaluator(workers=0))
    assert (outcome["filmed"], outcome["greedy"]["episodes"]) == (False, 20)
    assert "no episode of the policy is recorded for the report" in caplog.text
    assert not (tmp_path / "episode").exists()
    needy = replace(run, source=_Nothing(frozenset({Need.FRAMES})))
    with pytest.raises(TaskError, match="raised NotImplementedError"):
        examine(needy, Evaluator(workers=0))


class _SteeredParts(_Parts):
    """The same, walked by force alone."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = self.action_space["force"]

    def step(self, action):
        assert action in self.action_space
        return Corridor.step(self, int(action[0] > 0))


def test_sac_learns_from_pictures_and_replays_them_in_bytes():
    task = replace(STEERED, make=_SteeredParts)
    with reward_channel() as channel:
        channel.publish(Furthest())
        config = TrainConfig(algorithm="sac", env_runners=0, envs_per_runner=2, rllib=SOON)
        algorithm = build(RunnerSetup(task, Mix(shows=PROGRESS), 0, channel), config)
        result = algorithm.train()
        kept = {episode.get_observations().dtype for episode in algorithm.local_replay_buffer.episodes}
        algorithm.stop()
    assert np.isfinite(result["learners"]["default_policy"]["policy_loss"])
    assert kept == {np.dtype(np.uint8)}


@pytest.mark.parametrize("settings", [{"env_steps": 2_048}, {"env_steps": 512, "algorithm": "sac", "rllib": SOON}])
def test_the_same_seed_gives_the_same_run(tmp_path, settings):
    points = []
    for name in ("one", "two"):
        run = training(tmp_path / name, config=HERE.model_copy(update=settings))
        trained = train(run)
        weights = trained.policy._module.get_state()
        points.append(({k: v for k, v in curve(run)[0].items() if k != "seconds"}, weights))
    assert points[0][0] == points[1][0]
    for key, value in points[0][1].items():
        np.testing.assert_array_equal(value, points[1][1][key])


def test_a_stopped_training_goes_on_from_its_last_whole_checkpoint(tmp_path):
    class Stopped(BaseException):
        pass

    def stop_at_the_second(iteration):
        if train_calls.append(1) or len(train_calls) == 2:
            raise Stopped

    train_calls: list[int] = []
    run = training(tmp_path, config=HERE.model_copy(update={"env_steps": 5_000}))
    with pytest.raises(Stopped):
        train(run, teacher=teacher(stop_at_the_second))
    kept = curve(run)
    first = run.checkpoints.latest()
    lost = json.loads((tmp_path / LIVE).read_text())["env_steps"] - kept[0]["env_steps"]
    (tmp_path / "checkpoints" / "draft").mkdir()
    (tmp_path / "checkpoints" / "999999999999").mkdir()
    with run.curve.open("a") as file:
        file.write('{"env_steps": 7777, "a point that belongs to no checkpoint": 1}\n')
    versions = []
    trained = train(run, teacher=teacher(lambda iteration: versions.append(iteration.acknowledged)))
    points = curve(run)
    assert points[: len(kept)] == kept
    assert [point["env_steps"] for point in points] == sorted({point["env_steps"] for point in points})
    assert 7777 not in [point["env_steps"] for point in points]
    assert trained.progressed.iterations == len(points), "counters went on where they were"
    assert trained.progressed.env_steps < 5_000 + 2_048
    assert trained.progressed.generation == 1
    assert trained.progressed.rework_steps == points[-1]["rework_steps"] == lost > 1_000
    assert {version for seen in versions for version in seen.values()} == {1}, "the same source keeps its version"
    assert first is not None
    assert trained.checkpoint != first
    assert points[-1]["mean_return"] > kept[0]["mean_return"]
    returns = []
    for seed in range(3):
        other = training(tmp_path / str(seed), config=run.train, run_seed=seed)
        train(other)
        returns.append(curve(other)[-1]["mean_return"])
    spread = max(returns) - min(returns)
    assert min(returns) - spread <= points[-1]["mean_return"] <= max(returns) + spread


def test_a_checkpoint_gives_back_weights_optimizer_and_counters(tmp_path):
    def state(algorithm):
        learner = algorithm.learner_group.get_state()["learner"]
        return {**learner["rl_module"]["default_policy"], "optimizer": repr(learner["optimizer"])}

    with reward_channel() as channel:
        channel.publish(Furthest())
        setup = RunnerSetup(CORRIDOR, Mix(shows=PROGRESS), 0, channel)
        algorithm = build(setup, HERE)
        algorithm.train()
        algorithm.save_to_path(tmp_path / "saved")
        saved, steps = state(algorithm), algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"))
        algorithm.stop()
        other = build(replace(setup, run_seed=9), HERE)
        assert any(not np.array_equal(value, saved[key]) for key, value in state(other).items())
        other.restore_from_path(tmp_path / "saved")
        for key, value in state(other).items():
            np.testing.assert_array_equal(value, saved[key])
        assert other.train()["env_runners"]["num_env_steps_sampled_lifetime"] > steps
        other.stop()


def test_sources_published_in_mid_training_pay_or_are_refused_and_stale_steps_are_counted(tmp_path, caplog):
    run = training(tmp_path, config=HERE.model_copy(update={"env_steps": 5_000}))
    seen = []

    def publish(iteration):
        seen.append(iteration)
        return {2: Furthest(scale=2.0), 3: Shut()}.get(iteration.number)

    trained = train(run, teacher=teacher(publish))
    points = curve(run)
    assert [iteration.number for iteration in seen] == [1, 2, 3, 4, 5]
    assert [iteration.version for iteration in seen] == [1, 1, 2, 2, 2]
    assert [iteration.acknowledged["runner-0"] for iteration in seen] == [1, 1, 2, 2, 2]
    assert [iteration.env_steps for iteration in seen] == [point["env_steps"] for point in points]
    assert [iteration.source_id for iteration in seen] == ["furthest-1.0"] * 2 + ["furthest-2.0"] * 3
    assert len(points) == 5
    assert [point["reward_version"] for point in points] == [1, 1, 2, 2, 2]
    assert [point["evaluation"]["reward_version"] for point in points] == [1, 2, 2, 2, 2], "already by what is next"
    assert points[2]["mean_return"] > points[1]["mean_return"]
    stale = [point["stale_steps"] for point in points]
    assert stale[:2] == [0, 0]
    assert 0 < stale[2] < 8 * 20, "only of the episodes that were going on"
    steps = [point["env_steps"] for point in points]
    assert np.diff(stale[2:]).tolist() == np.diff(steps[2:]).tolist(), "all are older than what was refused"
    assert trained.progressed.stale_steps == stale[-1]
    assert trained.progressed.source_id == "furthest-2.0"
    assert set(seen[-1].acknowledged) == {"runner-0", "evaluator-0"}
    assert not seen[2].refused
    assert seen[-1].refused["runner-0"] == (3, "BoxError: no room for a box")
    assert caplog.text.count("runner-0 refused reward version 3: BoxError: no room for a box") == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("carl-")]
    more = replace(run, train=HERE.model_copy(update={"env_steps": 6_000}))
    resumed = train(more).progressed
    assert (resumed.reward_version, resumed.source_id) == (2, "furthest-2.0"), "the source that was current goes on"
    outcome = examine(more, Evaluator(workers=0))
    assert (outcome["source_id"], outcome["sampled"]["mean_return"] > 1.0) == ("furthest-2.0", True)


def test_a_policy_that_begins_anew_has_its_first_weights_and_the_new_source(tmp_path, monkeypatch):
    seen = []

    def spy(algorithm, weights):
        before = weights_of(algorithm)["default_policy"]
        begin_anew(algorithm, weights)
        acting = acting_module(algorithm).get_state()
        seen.append((before, weights["default_policy"], weights_of(algorithm)["default_policy"], acting))

    monkeypatch.setattr("carl.training.loop.begin_anew", spy)
    run = training(tmp_path, config=HERE.model_copy(update={"env_steps": 3_000, "evaluate_every": 100}))
    swap = teacher(lambda iteration: Anew(Furthest(scale=2.0)) if iteration.number == 2 else None)
    assert train(run, teacher=swap).progressed.source_id == "furthest-2.0"
    ((before, first, now, acting),) = seen
    assert any(not np.array_equal(value, first[key]) for key, value in before.items()), "it had learned"
    for key, value in now.items():
        np.testing.assert_array_equal(value, first[key])
    for key, value in acting.items():
        np.testing.assert_array_equal(value, first[key])


def test_another_source_after_a_stop_gets_the_next_version(tmp_path):
    run = training(tmp_path, config=HERE.model_copy(update={"env_steps": 2_048}))
    train(run)
    more = replace(run, source=Furthest(scale=2.0), train=HERE.model_copy(update={"env_steps": 6_000}))
    trained = train(more)
    assert trained.progressed.reward_version == 2
    assert curve(more)[-1]["mean_return"] > 1.0


def test_training_stops_at_the_success_rate(tmp_path):
    run = training(tmp_path, config=HERE.model_copy(update={"env_steps": 200_000, "stop_at_success": 0.9}))
    trained = train(run)
    assert trained.progressed.solved
    assert trained.progressed.env_steps < 50_000
    assert curve(run)[-1]["success_rate"] >= 0.8  # other episodes, and fewer, than those that decided
    more = replace(run, train=run.train.model_copy(update={"env_steps": 300_000}))
    assert train(more) == trained, "more steps are not asked of what was solved"


class Strict(Evaluator):
    """Says of every selection that too few episodes succeeded; counts them."""

    def __init__(self) -> None:
        super().__init__(workers=0)
        self.selections = 0

    def evaluate(self, exam, policy, role, episodes, **kwargs):
        found = super().evaluate(exam, policy, role, episodes, **kwargs)
        self.selections += role == Role.SELECTION
        return replace(found, success_rate=0.5) if role == Role.SELECTION else found


@pytest.mark.parametrize(("success", "selections"), [(rewarded_end, True), (never, False)])
def test_training_episodes_screen_and_selection_episodes_decide(tmp_path, success, selections):
    task = replace(CORRIDOR, success=success)
    evaluator = Strict()
    run = training(tmp_path, task, config=HERE.model_copy(update={"env_steps": 8_000, "stop_at_success": 0.9}))
    trained = train_with(run, evaluator=evaluator)
    assert trained.progressed.env_steps >= 8_000
    assert not trained.progressed.solved
    assert (evaluator.selections > 0) is selections


def test_fewer_steps_end_a_stopped_training_and_more_go_on(tmp_path):
    run = training(tmp_path, config=HERE.model_copy(update={"env_steps": 2_048}))
    first = train(run)
    fewer = replace(run, train=run.train.model_copy(update={"env_steps": 1_000}))
    assert train(fewer) == first
    assert examine(fewer, Evaluator(workers=0))["env_steps"] == first.progressed.env_steps
    more = replace(run, train=run.train.model_copy(update={"env_steps": 4_000}))
    assert train(more).progressed.env_steps >= 4_000


@pytest.mark.parametrize("change", [{"mix": Mix(env=0.5, shows=PROGRESS)}, {"run_seed": 4}])
def test_a_training_of_something_else_is_not_continued(tmp_path, change):
    run = training(tmp_path, config=HERE.model_copy(update={"env_steps": 1_000}))
    train(run)
    with pytest.raises(ConfigError, match="holds a training of"):
        train(replace(run, **change))


def test_a_code_reward_without_a_source_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="sparse"):
        train(training(tmp_path, source=None))


def test_the_sparse_baseline_trains_without_a_source(tmp_path):
    run = training(tmp_path, source=None, mix=Mix(source=0.0, env=1.0))
    train(run)
    assert curve(run)[-1]["success_rate"] == 1.0
    assert curve(run)[-1]["reward_version"] == 0


def test_a_task_that_pays_nan_ends_the_training_with_a_word(tmp_path):
    task = replace(CORRIDOR, make=lambda: TransformReward(CORRIDOR.make(), lambda reward: float("nan")))
    with pytest.raises(TaskError, match="reward of slot 0 is nan in step 1"):
        train(training(tmp_path, task, mix=Mix(env=1.0, shows=PROGRESS)))


class Blank(SteeredCorridor):
    """Observes a number that is none in its third step."""

    def _observation(self):
        return np.full(5, np.nan if self.steps == 3 else 0.5, np.float32)


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_an_observation_that_is_no_number_ends_the_training_with_a_word(tmp_path, algorithm):
    config = HERE.model_copy(update={"algorithm": algorithm, "rllib": {}})
    with pytest.raises(TaskError, match=r"observation of slot . is nan at \[0\] in step 3"):
        train(training(tmp_path, replace(STEERED, make=Blank), config))


def test_more_than_a_tenth_of_abstains_is_said_once_a_spell_and_counted(tmp_path, caplog):
    config = HERE.model_copy(update={"env_steps": 4_096, "evaluate_every": 100, "checkpoint_every": 100})
    run = training(tmp_path, config=config, source=Furthest(blind=frozenset(range(5))))
    seen = []

    def heal(iteration):
        seen.append(json.loads((tmp_path / LIVE).read_text())["abstaining"])
        return Furthest(scale=2.0) if iteration.counts["abstains"] and iteration.number == 2 else None

    trained = train(run, teacher=teacher(heal))
    assert seen == [1, 2, 2, 2]
    assert trained.progressed.abstaining == curve(run)[-1]["abstaining"] == 2
    assert caplog.text.count("could not be judged and earned nothing") == 1


def test_a_weight_that_is_no_number_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    run = training(tmp_path, config=HERE.model_copy(update={"env_steps": 2_048, "evaluate_every": 100}))
    checks = []

    def failing(algorithm):
        checks.append(algorithm)
        if len(checks) == 2:
            raise TaskError("the weights are not finite")

    monkeypatch.setattr("carl.training.loop.check_weights", failing)
    with pytest.raises(TaskError, match="not finite"):
        train(run)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [run.checkpoints.latest().name]


def test_sac_goes_on_with_what_it_replayed_from(tmp_path):
    prioritized = {"type": "PrioritizedEpisodeReplayBuffer", "capacity": 2_000, "alpha": 0.6, "beta": 0.4}
    rllib = {**SOON, "training": {**SOON["training"], "replay_buffer_config": prioritized}}
    config = TrainConfig(algorithm="sac", env_runners=0, envs_per_runner=8, rllib=rllib)
    with reward_channel() as channel:
        channel.publish(Furthest())
        setup = RunnerSetup(STEERED, Mix(shows=PROGRESS), 0, channel)
        algorithm = build(setup, config)
        assert set(trained_on(algorithm.train())) == {1}, "the version that paid is known of what is replayed"
        algorithm.save_to_path(tmp_path / "saved")
        held = algorithm.local_replay_buffer.get_num_timesteps()
        algorithm.stop()
        other = build(setup, config)
        other.restore_from_path(tmp_path / "saved")
        assert isinstance(other.local_replay_buffer, VersionedPrioritizedReplayBuffer)
        assert other.local_replay_buffer.get_num_timesteps() == held >= 200
        assert set(trained_on(other.train())) == {1}
        other.stop()


def test_only_the_last_checkpoints_are_kept(tmp_path):
    class Saver:
        def save_to_path(self, path):
            path.mkdir(parents=True)

    from carl.training.checkpoint import Progressed

    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    for steps in (5, 10, 15, 15):
        checkpoints.save(Saver(), Progressed(env_steps=steps))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000000000010", "000000000015"]
    assert Progressed.read(checkpoints.latest() / STATE).env_steps == 15
    assert (checkpoints.latest() / ALGORITHM).is_dir()


def test_sac_learns_to_steer(tmp_path):
    config = TrainConfig(
        algorithm="sac", env_runners=0, envs_per_runner=8, env_steps=1_000, evaluate_every=100, rllib=SOON
    )
    run = training(tmp_path, task=STEERED, config=config)
    versions = []

    def publish_the_same_again(iteration):
        versions.append(iteration.acknowledged["runner-0"])
        return Furthest() if iteration.number == 2 else None

    trained = train(run, teacher=teacher(publish_the_same_again))
    outcomes = play(trained.policy, run.exam, range(20), greedy=True, sampling_seed=0)
    assert {outcome.success for outcome in outcomes} == {True}
    assert versions == [1, 1, 2, 2]
    replayed = 128 * 500 / 8
    assert 0.3 * replayed < trained.progressed.stale_steps < replayed, "the replay buffer holds steps of both versions"


def test_a_source_replaced_in_mid_training_and_a_runner_killed_while_idle(tmp_path, channels):
    """The restarted runner comes back with its first configuration, and must come back with the second source, since
    the third cannot be opened."""
    config = HERE.model_copy(update={"env_runners": 1, "env_steps": 10_000, "checkpoint_every": 100})
    run = training(tmp_path, config=config)
    births = []

    def meddle(iteration):
        (channel,) = channels
        births.append(channel.births()["runner-1"])
        if iteration.number == 4:
            assert iteration.refused["runner-1"].version == 3
            _kill_the_runner(channel)
        return {2: Furthest(scale=2.0), 3: Shut()}.get(iteration.number)

    train(run, teacher=teacher(meddle))
    versions = [point["reward_version"] for point in curve(run)]
    assert versions[:2] == [1, 1]
    assert set(versions[2:]) == {2}
    assert births[-1] == 2
    assert curve(run)[-1]["mean_return"] > 1.5, "paid twice by the second source"
    assert curve(run)[-1]["success_rate"] > 0.7


def _weights_of_the_runner(group):
    """On a busy machine a runner that has just been restarted may not answer the first call."""
    deadline = time.monotonic() + 60
    while not (answers := group.foreach_env_runner(_weights, local_env_runner=False)):
        assert time.monotonic() < deadline, "the restarted runner never answers"
        group.probe_unhealthy_env_runners()
    return answers[0]


def test_a_restarted_runner_is_sent_the_weights(tmp_path):
    with reward_channel() as channel:
        channel.publish(Furthest())
        algorithm = build(
            RunnerSetup(CORRIDOR, Mix(shows=PROGRESS), 0, channel), TrainConfig(env_runners=1, envs_per_runner=2)
        )
        group = algorithm.env_runner_group
        algorithm.train()
        _kill_the_runner(channel)
        blind = _weights_of_the_runner(group)
        deadline = time.monotonic() + 60
        while not dict(group.foreach_env_runner(has_weights, local_env_runner=False)).get(1):
            assert time.monotonic() < deadline, "the restarted runner is never sent the weights"
            send_weights_to_the_restarted(algorithm)
            group.probe_unhealthy_env_runners()
        seeing = _weights_of_the_runner(group)
        learned = algorithm.learner_group.get_weights()["default_policy"]
        assert any(not np.array_equal(value, learned[key]) for key, value in blind.items())
        for key, value in seeing.items():
            np.testing.assert_array_equal(value, learned[key])
        algorithm.stop()


def test_a_runner_that_dies_while_it_samples_is_replaced(tmp_path, channels):
    mark = tmp_path / "died"
    config = HERE.model_copy(update={"env_runners": 1, "evaluate_every": 100, "checkpoint_every": 100})
    births = []
    task = replace(DEADLY, make=_Mortal(str(mark)))
    watch = teacher(lambda iteration: births.append(channels[0].births()))
    trained = train(training(tmp_path, task=task, config=config), teacher=watch)
    assert mark.exists()
    assert births[-1] == {"runner-1": 2}
    assert trained.progressed.env_steps >= 4_096


@pytest.mark.parametrize("algorithm", ["appo", "sac"])
def test_what_the_tasks_code_raises_in_an_env_runner_ends_the_training_with_it(tmp_path, algorithm):
    task = replace(CORRIDOR, make=_Broken)
    config = TrainConfig(algorithm=algorithm, env_runners=1, envs_per_runner=2, env_steps=8_000)
    with pytest.raises(
        TaskError, match=r"'corridor': its code raised (\w+) in a step of runner-1: .*test_train\.py:\d+"
    ):
        train(training(tmp_path, task=task, config=config))


def test_appo_learns_the_corridor_with_a_stop_another_source_and_a_killed_runner(tmp_path, channels):
    config = TrainConfig(
        algorithm="appo", env_runners=1, envs_per_runner=32, env_steps=14_000, evaluate_every=1, checkpoint_every=1
    )
    run = training(tmp_path, config=config)
    iterations, births = [], []

    def meddle(iteration):
        iterations.append(iteration)
        births.append(channels[-1].births()["runner-1"])
        if len(iterations) == 3:
            _kill_the_runner(channels[-1])
        return Furthest(scale=2.0) if len(iterations) == 1 else None

    with pytest.raises(KeyboardInterrupt):
        train(run, teacher=_stop_in_the_second())
    more = replace(run, train=config.model_copy(update={"checkpoint_every": 100}))
    trained = train(more, teacher=teacher(meddle))
    assert [iteration.number for iteration in iterations[:2]] == [2, 3], "counted from the very start"
    last = curve(run)[-1]
    assert births[-1] == 2
    assert trained.progressed.generation == 1
    assert last["reward_version"] == 2
    assert 0 < last["stale_steps"] < 2_048, "what was sampled before the second source arrived"
    assert last["mean_return"] > 1.9
    assert last["success_rate"] > 0.9, "the curve is played with the learner's weights"
    assert last["mean_length"] < 7
    assert not [thread for thread in threading.enumerate() if thread.name == "_LearnerThread"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_goes_wrong_in_appos_learner_ends_the_training(tmp_path):
    task = replace(CORRIDOR, make=_Priceless)
    config = TrainConfig(algorithm="appo", env_runners=1, envs_per_runner=8, env_steps=8_000)
    with pytest.raises(TaskError, match="reward of slot 0 is nan in step 1"):
        train(training(tmp_path, task, config, mix=Mix(env=1.0, shows=PROGRESS)))
    deadline = time.monotonic() + 60
    while _weight_servers():
        assert time.monotonic() < deadline, "RLlib's stop leaves it to the garbage collector"
        time.sleep(0.1)


def test_a_learner_in_a_process_of_its_own_learns_and_goes_on_after_a_stop(tmp_path):
    config = HERE.model_copy(update={"learners": 1})
    run = training(tmp_path, config=config)
    with pytest.raises(KeyboardInterrupt):
        train(run, teacher=_stop_in_the_second())
    first = curve(run)
    trained = train(run)
    points = curve(run)
    assert trained.progressed.generation == 1
    assert [point["env_steps"] for point in points] == sorted({point["env_steps"] for point in points})
    assert points[-1]["success_rate"] == 1.0
    assert points[-1]["mean_length"] < first[0]["mean_length"]
    final = Evaluator(workers=0).evaluate(run.exam, trained.policy, Role.EVALUATION, 20, greedy=True)
    assert final.success_rate == 1.0


def test_sac_on_mountain_car_with_the_example_program(tmp_path):
    program = RewardProgram.load(Path(__file__).parents[1] / "programs" / "mountain_car.json")
    config = TrainConfig(
        algorithm="sac", env_runners=0, envs_per_runner=8, env_steps=500, evaluate_every=100, rllib=SOON
    )
    task = replace(get_task("MountainCarContinuous"), make=_short_drive)
    run = training(tmp_path, task=task, config=config, source=ProgramReward(program))
    trained = train(run)
    assert trained.progressed.env_steps >= 500
    point = curve(run)[-1]
    assert point["abstains"] == 0
    counts = point["reward"]
    assert counts["cache_hits"] + counts["cache_misses"] >= 500
    assert (counts["box_restarts"], counts["quarantined"]) == (0, 0)
    assert 0.0 < point["mean_return"] <= program.max_return
    push = trained.policy.act(np.zeros((3, 10), np.float32), greedy=False)
    assert push.shape == (3, 1)
    assert (np.abs(push) <= 1.0).all()


def _short_drive():
    return TimeLimit(get_task("MountainCarContinuous").make(), 60)


class _Mortal:
    """Builds corridors whose process dies once."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __call__(self):
        os.environ["CARL_TEST_MARK"] = self.mark
        return DEADLY.make()


class _Priceless(Corridor):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float("nan"), *rest


class _Broken(Corridor):
    def step(self, action):
        raise RuntimeError("broken")


def _stop_in_the_second():
    """Stops a training in its second iteration, when the checkpoint of the first is there."""

    def stop(iteration):
        if iteration.number == 2:
            raise KeyboardInterrupt

    return teacher(stop)


def _weights(runner) -> dict[str, np.ndarray]:
    return runner.module.get_state()


def _weight_servers() -> list[psutil.Process]:
    """Processes of RLlib's from which APPO's env runners fetch weights."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if "EnvRunnerStateServer" in process.name()]


def _kill_the_runner(channel: ChannelClient) -> None:
    """Kill the runner between two calls, and wait until Ray has built it again; RLlib notices nothing."""
    below = psutil.Process().children(recursive=True)
    runners = [process for process in below if process.cmdline()[:1] and "PaidRunner" in process.cmdline()[0]]
    assert len(runners) == 1
    runners[0].kill()
    deadline = time.monotonic() + 200
    while channel.births()["runner-1"] == 1 and time.monotonic() < deadline:
        time.sleep(0.1)
