import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import ray
from ray.exceptions import ActorDiedError, RayTaskError, TaskCancelledError

from carl.broadcast.channel import reward_channel
from carl.cluster.core import clearly
from carl.errors import ResourceError, TaskError
from carl.rewards.latch import PROGRESS
from carl.rewards.mix import Mix
from carl.seeding import Role, seeds_of
from carl.training.evaluation import Evaluation, Evaluator, Exam, Outcome, Share, _Examiner, _got, play
from carl.training.final import record
from tests.fakes.corridor import COIN_FLIP, CORRIDOR, FAILURES, CoinFlip, Corridor, Furthest, Shut, failing
from tests.fakes.near_channel import NearChannel

SPARSE = Mix(source=0.0, env=1.0)


class Always:
    """A policy that takes one action, and remembers how many observations it was asked about."""

    def __init__(self, action: int) -> None:
        self.action = action
        self.batches: list[np.ndarray] = []

    def act(self, observations, *, greedy):
        self.batches.append(observations)
        return np.full(len(observations), self.action)


def test_short_successes_count_no_more_than_long_failures():
    seeds = seeds_of(0, Role.EVALUATION, 200)
    truth = []
    for seed in seeds:
        env = CoinFlip()
        env.reset(seed=seed)
        truth.append(env.lucky)
    outcomes = play(Always(1), Exam(COIN_FLIP, SPARSE, None, 0), seeds, greedy=True, sampling_seed=0)
    assert len(outcomes) == 200
    assert sum(outcome.success for outcome in outcomes) == sum(truth)
    assert 0.4 < np.mean(truth) < 0.6
    assert {outcome.length for outcome in outcomes if outcome.success} == {2}
    assert {outcome.length for outcome in outcomes if not outcome.success} == {20}
    first_to_finish = sorted(outcomes, key=lambda outcome: outcome.length)[:100]
    assert np.mean([outcome.success for outcome in first_to_finish]) > 0.8, "what counting the first to end would say"


@pytest.mark.parametrize("episodes", [1, 5, 16, 37])
def test_every_seed_is_played_once(episodes, monkeypatch):
    played = []
    reset = Corridor.reset

    def remember(self, *, seed=None, options=None):
        played.append(seed)
        return reset(self, seed=seed, options=options)

    monkeypatch.setattr(Corridor, "reset", remember)
    seeds = seeds_of(0, Role.CURVE, episodes)
    outcomes = play(Always(1), Exam(CORRIDOR, Mix(shows=PROGRESS), Furthest(), 0), seeds, greedy=True, sampling_seed=0)
    assert sorted(played) == sorted(seeds)
    assert outcomes == [Outcome(True, 4, 1.0, 0, reward_version=1, env_ret=1.0, shown=(1.0,) + (0.0,) * 7)] * episodes


def test_rounds_play_every_seed_once_and_are_told(monkeypatch):
    played, told = [], []
    reset = Corridor.reset

    def remember(self, *, seed=None, options=None):
        played.append(seed)
        return reset(self, seed=seed, options=options)

    monkeypatch.setattr(Corridor, "reset", remember)
    evaluation = Evaluator(workers=0).evaluate(
        Exam(CORRIDOR, Mix(shows=PROGRESS), Furthest(), 0),
        Always(1),
        Role.CURVE,
        70,
        greedy=True,
        progress=lambda label, done, total=None: told.append((done, total)),
    )
    assert sorted(played) == sorted(seeds_of(0, Role.CURVE, 70))
    assert (evaluation.episodes, evaluation.success_rate) == (70, 1.0)
    assert told == [(0, 70), (32, 70), (64, 70), (70, 70)]


def test_abstains_on_initial_frames_count():
    exam = Exam(CORRIDOR, Mix(shows=PROGRESS), Furthest(blind=frozenset({0})), 0)
    outcomes = play(Always(1), exam, seeds_of(0, Role.CURVE, 40), greedy=True, sampling_seed=0)
    assert {outcome.abstains for outcome in outcomes} == {1}


def test_a_share_that_is_spent_stands_still():
    env = Share(Corridor(length=1), [7], np.full(1, -1))
    env.reset()
    assert env.step(1)[2]
    observation, _ = env.reset()
    assert env.unwrapped.episode == 1
    assert env.step(1)[1:] == (0.0, False, False, {})
    np.testing.assert_array_equal(observation, [0.0, 1.0])


def test_no_frames_without_a_source_and_progress_with_one():
    policy = Always(1)
    play(policy, Exam(CORRIDOR, SPARSE, None, 0), [1, 2], greedy=True, sampling_seed=0)
    assert policy.batches[0].shape == (2, 5)
    play(policy, Exam(CORRIDOR, Mix(shows=PROGRESS), Furthest(), 0), [1, 2], greedy=True, sampling_seed=0)
    assert policy.batches[-1][0, 5] == 0.75


def test_an_evaluation_is_paid_by_the_channel_and_acknowledges_it():
    channel = NearChannel()
    channel.publish(Furthest())
    channel.publish(Furthest(scale=2.0))
    channel.publish(Shut())
    exam = Exam(CORRIDOR, Mix(shows=PROGRESS), None, 0, channel=channel, offers=tuple(channel.offers()))
    evaluator = Evaluator(workers=0)
    evaluation = evaluator.evaluate(exam, Always(1), Role.CURVE, 3, greedy=True)
    assert (evaluation.reward_version, evaluation.mean_return) == (2, 2.0)
    assert channel.acknowledgements() == {"evaluator-0": 2}
    assert channel.refusals() == {"evaluator-0": (3, "BoxError: no room for a box")}
    evaluator.evaluate(exam, Always(1), Role.CURVE, 3, greedy=True)
    assert channel.births() == {"evaluator-0": 1}
    channel.die()
    assert evaluator.evaluate(exam, Always(1), Role.CURVE, 3, greedy=True) == evaluation


def test_an_exam_without_a_channel_names_the_version_of_its_source():
    evaluator, exam = Evaluator(workers=0), Exam(CORRIDOR, Mix(shows=PROGRESS), Furthest(), 0, version=7)
    assert evaluator.evaluate(exam, Always(1), Role.CURVE, 3, greedy=True).reward_version == 7
    sparse = Exam(CORRIDOR, SPARSE, None, 0)
    assert evaluator.evaluate(sparse, Always(1), Role.CURVE, 3, greedy=True).reward_version == 0


@pytest.mark.parametrize("where", FAILURES)
def test_what_the_tasks_code_raises_is_said_wherever_a_policy_is_examined(where, tmp_path):
    exam = Exam(failing(where), Mix(shows=PROGRESS), Furthest(), 0)
    said = rf"'corridor': its code raised OSError in .*: no {where} \("
    with pytest.raises(TaskError, match=said):
        _Examiner("evaluator-1", tmp_path / "mark").play((Always(1), exam), [1, 2], greedy=True, sampling_seed=0)
    with pytest.raises(TaskError, match=said):
        record(Always(1), exam, 5)


class Ended(BaseException):
    """As if the process had."""


class Fatal(Corridor):
    """Ends its process in one episode."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        if where == "make":
            raise Ended

    def reset(self, *, seed=None, options=None):
        if (self.where, seed) == ("reset", 7):
            raise Ended
        self.seed = seed
        return super().reset(seed=seed)

    def step(self, action):
        if (self.where, self.seed) == ("step", 7):
            raise Ended
        return super().step(action)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("make", "the making of its environments: "),
        ("reset", "the episode of seed 7 or one beside it: "),
        ("step", "the episode of seed 7 or one beside it: "),
    ],
)
def test_of_an_environment_that_ends_its_process_the_seed_is_said(where, said, tmp_path, monkeypatch):
    task, mark = replace(CORRIDOR, make=partial(Fatal, where)), tmp_path / "mark"
    with pytest.raises(Ended):
        _Examiner("evaluator-1", mark).play(
            (Always(1), Exam(task, Mix(shows=PROGRESS), Furthest(), 0)), range(30), greedy=True, sampling_seed=0
        )

    def get(result):
        raise ActorDiedError

    monkeypatch.setattr("ray.get", get)
    with (
        pytest.raises(TaskError, match=f"'corridor': a process that evaluated ended twice, the last time in {said}"),
        clearly(),
    ):
        _got(None, task, mark)
    with pytest.raises(ResourceError, match="ended unexpectedly"), clearly():
        _got(None, task, tmp_path / "never played")


@pytest.fixture(scope="module")
def beside(ray_cluster):
    """Two processes that examine."""
    with Evaluator(workers=2) as evaluator:
        yield evaluator


def test_evaluating_processes_acknowledge_by_name(beside):
    with reward_channel() as channel:
        channel.publish(Furthest(scale=2.0))
        exam = Exam(CORRIDOR, Mix(shows=PROGRESS), None, 0, channel=channel, offers=tuple(channel.offers()))
        assert beside.evaluate(exam, Always(1), Role.CURVE, 4, greedy=True).mean_return == 2.0
        assert set(channel.wait_acknowledged(1, ["evaluator-0", "evaluator-1"], 10).seconds) == set(channel.births())


def test_roles_share_no_seed():
    roles = (Role.CURVE, Role.SELECTION, Role.EVALUATION, Role.TRAINING)
    assert len({seed for role in roles for seed in seeds_of(0, role, 200)}) == 800


def test_an_episode_that_never_ends_is_cut_and_counted(monkeypatch):
    monkeypatch.setattr("carl.task.LONGEST", 30)
    played = []
    reset = Corridor.reset

    def remember(self, *, seed=None, options=None):
        played.append(seed)
        return reset(self, seed=seed, options=options)

    monkeypatch.setattr(Corridor, "reset", remember)
    exam = Exam(replace(CORRIDOR, make=partial(Corridor, 4, 1_000)), Mix(shows=PROGRESS), Furthest(), 0)
    outcomes = play(Always(0), exam, range(20), greedy=True, sampling_seed=0)
    assert outcomes == [Outcome(False, 30, 0.0, 0, reward_version=1, cut=True, shown=(0.0,) * 8)] * 20
    assert sorted(played) == list(range(20)), "each slot goes on with its share"
    assert Evaluation.of(outcomes, greedy=True).cut == 20
    assert not any(outcome.cut for outcome in play(Always(1), exam, [1, 2], greedy=True, sampling_seed=0))
    assert len(record(Always(0), exam, 5)) == 30


def test_summary():
    evaluation = Evaluation.of([Outcome(True, 4, 1.0, 0), Outcome(False, 20, 0.5, 2)], greedy=False)
    assert (evaluation.episodes, evaluation.success_rate) == (2, 0.5)
    assert (evaluation.mean_length, evaluation.mean_return) == (12.0, 0.75)
    assert evaluation.abstains == 2
    low, high = evaluation.to_dict()["interval"]
    assert 0.0 < low < 0.5 < high < 1.0


def test_processes_beside_the_training_answer_the_same(beside):
    exam = Exam(COIN_FLIP, SPARSE, None, 0)
    apart = beside.evaluate(exam, Always(1), Role.SELECTION, 21, greedy=False)
    assert apart == Evaluator(workers=0).evaluate(exam, Always(1), Role.SELECTION, 21, greedy=False)


class Filming:
    """Stands in for a process that films; its answer is how many episodes it was asked for."""

    def __init__(self):
        self.film = self

    def remote(self, _, seeds, **__):
        return [len(seeds)]


@pytest.mark.parametrize(("episodes", "shares"), [(1, [1]), (8, [8]), (15, [15]), (17, [9, 8]), (40, [20, 20])])
def test_a_film_is_shared_where_each_process_has_enough_of_it(episodes, shares, monkeypatch):
    monkeypatch.setattr("carl.training.evaluation.ray.put", lambda what: what)
    monkeypatch.setattr("carl.training.evaluation.ray.get", lambda what: what)
    evaluator = Evaluator(workers=0)
    evaluator._workers = [Filming(), Filming()]
    assert evaluator.film(Exam(CORRIDOR, SPARSE, None, 0), Always(1), 0, episodes) == shares


class Asleep(Always):
    def act(self, observations, *, greedy):
        time.sleep(60)
        return super().act(observations, greedy=greedy)


def test_what_is_played_at_a_stop_is_not_tried_again(beside, monkeypatch):
    """The last test that uses these processes: it ends them, as a stop does."""

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("carl.training.evaluation._got", stopped)
    with pytest.raises(KeyboardInterrupt):
        beside.evaluate(Exam(CORRIDOR, SPARSE, None, 0), Asleep(1), Role.SELECTION, 2, greedy=True)
    asked = list(beside._asked)
    beside.close()
    assert len(asked) == 2
    for one in asked:
        with pytest.raises((TaskCancelledError, RayTaskError)):  # the latter if it began only as its folder was gone
            ray.get(one, timeout=30)
