import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from carl.config import TrainConfig
from carl.errors import BoxError, ResourceError, TaskError
from carl.rewards.latch import PROGRESS
from carl.rewards.mix import Mix
from carl.seeding import Role, seed_of
from carl.training.rllib.algorithms import configure
from carl.training.rllib.runner import PaidRunner, RunnerSetup
from tests.fakes.corridor import CORRIDOR, FAILURES, STEERED, Corridor, Furthest, Shut, SteeredCorridor, failing
from tests.fakes.near_channel import NearChannel


@pytest.fixture
def channel() -> NearChannel:
    channel = NearChannel()
    channel.publish(Furthest())
    return channel


def runner(
    channel,
    *,
    envs: int = 3,
    index: int = 1,
    mix: Mix | None = None,
    generation: int = 0,
    kind=PaidRunner,
    task=CORRIDOR,
) -> PaidRunner:
    setup = RunnerSetup(task, mix or Mix(shows=PROGRESS), 5, channel, generation)
    config = configure(setup, TrainConfig(env_runners=0, envs_per_runner=envs))
    # RLlib copies configurations deeply; the channel has to stay the one the test holds.
    made = kind(config=config.copy(copy_frozen=False), worker_index=index)
    made._setup = replace(setup)
    MADE.append(made)
    return made


MADE: list[PaidRunner] = []


@pytest.fixture(autouse=True)
def _stopped():
    yield
    while MADE:
        MADE.pop().stop()
    assert not listening(), "a thread stays behind"


def listening() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("carl-")]


class ListedInfos(gym.vector.VectorWrapper):
    """What RLlib's own loop needs: a list of infos."""

    def reset(self, **kwargs):
        return self.env.reset(**kwargs)[0], [{}] * self.num_envs

    def step(self, actions):
        return *self.env.step(actions)[:4], [{}] * self.num_envs


class StockRunner(PaidRunner):
    """Samples by RLlib's own loop."""

    _sample = SingleAgentEnvRunner._sample

    def make_env(self) -> None:
        super().make_env()
        self.env = ListedInfos(self.env)


def session(made: PaidRunner, version: int = 1):
    """The session of the source that pays ``made`` by ``version``."""
    return made._paid._payers._sessions[version]._session


def slot_seeds(made: PaidRunner) -> list[list[int]]:
    return [env.seeds for env in made.env.unwrapped.envs]


def test_slots_get_spawned_seeds_that_no_neighbour_shares(channel):
    seeds = set()
    for index in (1, 2):
        for generation in (0, 1):
            made = runner(channel, index=index, generation=generation)
            made.sample(num_timesteps=3)
            seeds.update(seeds_of_slot[0] for seeds_of_slot in slot_seeds(made))
    assert len(seeds) == 12
    assert seed_of(5, Role.TRAINING, 1, 0, 0, 0) in seeds


class Shifted(SteeredCorridor):
    """Its actions are not in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Box(2.0, 6.0, (1,), np.float32)

    def step(self, action):
        return super().step(action - 4.0)


SHIFTED = replace(STEERED, make=Shifted)


def content(episode) -> list[Any]:
    arrays = [episode.get_observations(), episode.get_actions(), episode.get_rewards()]
    more = [episode.get_extra_model_outputs(key) for key in sorted(episode.extra_model_outputs)]
    facts = [episode.t_started, episode.t, bool(episode.is_terminated), bool(episode.is_truncated)]
    return [np.asarray(column).tolist() for column in arrays + more] + facts


@pytest.mark.parametrize("task", [CORRIDOR, SHIFTED], ids=["discrete", "continuous"])
@pytest.mark.parametrize(
    "how",
    [
        {"num_timesteps": 17},
        {"num_episodes": 4},
        {"num_timesteps": 9, "explore": False},
        {"num_timesteps": 30, "random_actions": True},
    ],
    ids=str,
)
def test_sampling_by_column_gives_what_rllib_gives(how, task):
    """Same seeds, same episodes in the same chunks and order, same metrics, over several calls."""
    seen = []
    for kind in (PaidRunner, StockRunner):
        channel = NearChannel()
        channel.publish(Furthest())
        torch.manual_seed(3)
        made = runner(channel, kind=kind, task=task)
        torch.manual_seed(4)
        made.env.action_space.seed(5)
        chunks, metrics = [], []
        for _ in range(5):
            episodes = made.sample(**how)
            chunks += [[content(episode) for episode in episodes]]
            found = made.get_metrics()
            keys = ("num_env_steps_sampled", "episode_return_mean", "episode_len_mean", "num_episodes")
            metrics.append([found[key].peek() for key in keys if key in found])
        seen.append((chunks, metrics))
    assert seen[0][0] == seen[1][0]
    assert np.allclose(*[[value for row in metrics for value in row] for _, metrics in seen], equal_nan=True)
    assert sum(len(chunk) for chunk in seen[0][0]) >= 10


class Breaks(Corridor):
    """A step fails, once."""

    broken = False

    def step(self, action):
        if self.steps == 3 and not Breaks.broken:
            Breaks.broken = True
            raise RuntimeError("broken")
        return super().step(action)


def test_an_environment_that_failed_is_built_anew_and_its_episodes_go_on(channel, monkeypatch):
    monkeypatch.setattr(Breaks, "broken", False)
    made = runner(channel, task=replace(CORRIDOR, make=Breaks))
    made.config._is_frozen = False
    made.config.restart_failed_sub_environments = True
    chunks = [episode for _ in range(4) for episode in made.sample(num_timesteps=6)]
    assert Breaks.broken
    assert sum(len(chunk) for chunk in chunks) >= 24
    assert channel.births() == {"runner-1": 2}
    assert listening() == ["carl-runner-1"], "the thread of the first build has ended"
    assert [sum(seed is not None for seed in slot) for slot in slot_seeds(made)] == [1, 1, 1], "reset only once"


@pytest.mark.parametrize("where", FAILURES)
def test_whatever_of_the_tasks_code_raises_is_raised_as_its_error_and_reported(channel, where):
    said = rf"'corridor': its code raised OSError in .* of runner-1: no {where} \("
    with pytest.raises(TaskError, match=said) as raised:
        runner(channel, task=failing(where)).sample(num_timesteps=30, random_actions=True)
    assert channel.failure() == str(raised.value)


def test_nothing_asked_for_is_nothing(channel):
    assert runner(channel).sample(num_timesteps=0) == []


def test_a_rebuilt_runner_plays_other_episodes(channel):
    first, second = runner(channel), runner(channel)
    first.sample(num_timesteps=3)
    second.sample(num_timesteps=3)
    assert channel.births() == {"runner-1": 2}
    assert not {s[0] for s in slot_seeds(first)} & {s[0] for s in slot_seeds(second)}


def test_steps_are_paid_by_the_source_and_know_its_version(channel):
    episodes = runner(channel).sample(num_timesteps=60)
    assert channel.acknowledgements() == {"runner-1": 1}
    for episode in episodes:
        assert set(episode.custom_data["reward_version"].tolist()) == {1}
        assert len(episode.custom_data["reward_version"]) == len(episode)
        assert episode.custom_data["success"][-1] == bool(episode.is_terminated)
        assert 0.0 <= episode.get_return() <= 1.0


def test_no_episode_mixes_two_versions(channel):
    made = runner(channel)
    chunks = made.sample(num_timesteps=12)
    channel.publish(Furthest(scale=2.0))
    assert made.version == 1
    for _ in range(6):
        chunks += made.sample(num_timesteps=60)
    assert channel.acknowledgements() == {"runner-1": 2}
    versions: dict[str, set[int]] = {}
    for chunk in chunks:
        versions.setdefault(chunk.id_, set()).update(chunk.custom_data["reward_version"].tolist())
    assert all(len(seen) == 1 for seen in versions.values())
    assert set().union(*versions.values()) == {1, 2}
    best = {1: 0.0, 2: 0.0}
    for chunk in chunks:
        version = int(chunk.custom_data["reward_version"][-1])
        best[version] = max(best[version], *chunk.get_rewards())
    assert best == {1: 0.25, 2: 0.5}


class Publishes(Corridor):
    """Publishes the next source when its tenth episode is half way, and waits until that is acknowledged."""

    channel: Any = None

    def step(self, action):
        if self.episode == 10 and self.steps == 2 and Publishes.channel is not None:
            channel, Publishes.channel = Publishes.channel, None
            channel.publish(Furthest(scale=2.0))
            assert acknowledged(channel, 2)
        return super().step(action)


def acknowledged(channel, version: int) -> bool:
    deadline = time.monotonic() + 10
    while channel.acknowledgements().get("runner-1") != version and time.monotonic() < deadline:
        time.sleep(0.005)
    return channel.acknowledgements().get("runner-1") == version


def test_a_version_published_in_mid_sample_pays_the_episodes_that_start_after_its_acknowledgement(channel, monkeypatch):
    made = runner(channel, task=replace(CORRIDOR, make=Publishes), envs=2)
    monkeypatch.setattr(Publishes, "channel", channel)
    episodes = made.sample(num_timesteps=800, random_actions=True)
    assert Publishes.channel is None
    versions = [set(episode.custom_data["reward_version"].tolist()) for episode in episodes]
    assert all(len(seen) == 1 for seen in versions), "no episode mixes two"
    slots: dict[int, list[int]] = {1: [], 2: []}
    for (version,), episode in zip(versions, episodes, strict=True):
        slots[version].append(len(episode))
        assert max(episode.get_rewards()) <= version / 4 + 1e-6
    assert len(slots[2]) > 10
    assert 15 <= len(slots[1]) <= 25, "nine episodes before, and each slot's ongoing one"
    metered = made.get_metrics()["paid_by"]
    assert {int(version): steps.peek() for version, steps in metered.items()} == {
        version: sum(lengths) for version, lengths in slots.items()
    }


def test_an_idle_runner_acknowledges_at_once(channel):
    made = runner(channel)
    channel.publish(Furthest(scale=2.0))
    assert acknowledged(channel, 2)
    assert made.version == 2


def test_a_source_that_cannot_be_opened_leaves_the_last_one_in_charge(channel):
    made = runner(channel)
    channel.publish(Shut())
    for _ in range(3):
        episodes = made.sample(num_timesteps=30)
        assert {version for e in episodes for version in e.custom_data["reward_version"].tolist()} == {1}
    assert made.version == 1
    assert channel.refusals() == {"runner-1": (2, "BoxError: no room for a box")}
    assert channel.acknowledgements() == {"runner-1": 1}
    assert runner(channel).version == 1, "one built anew falls back too"


def test_a_session_whose_process_stays_away_ends_the_runner(channel, monkeypatch):
    """RLlib builds it anew; frames that nobody judges any more would be a training on nothing."""
    made = runner(channel)
    made.sample(num_timesteps=9)

    def break_down(seen):
        raise BoxError("no more processes")

    monkeypatch.setattr(session(made), "look", break_down)
    with pytest.raises(BoxError, match="no more processes"):
        made.sample(num_timesteps=90)


def test_an_environment_that_does_not_close_is_only_logged(channel, caplog):
    made = runner(channel)
    close, made.env.close = made.env.close, None
    made.stop()
    assert "did not close" in caplog.text
    assert not listening()
    made.env.close = close


def test_a_runner_built_later_starts_with_the_current_version(channel):
    channel.publish(Furthest(scale=2.0))
    assert runner(channel).version == 2


def test_a_dead_channel_leaves_the_last_version_in_charge(channel, caplog):
    made = runner(channel)
    channel.dead = True
    assert made.sample(num_timesteps=10)
    assert "keeps reward version 1" in caplog.text


def test_a_dead_channel_is_an_error_when_building(channel):
    channel.dead = True
    with pytest.raises(ResourceError):
        runner(channel)


def test_episodes_that_never_end_are_truncated_and_counted(channel, monkeypatch):
    monkeypatch.setattr("carl.task.LONGEST", 5)
    made = runner(channel, task=replace(CORRIDOR, make=lambda: Corridor(length=99, patience=1_000)))
    ended = [episode for episode in made.sample(num_timesteps=36) if episode.is_done]
    assert [(len(episode), episode.is_truncated, episode.is_terminated) for episode in ended] == [(5, True, False)] * 6
    assert made.get_metrics()["reward"]["cut"].peek() == 6


def test_abstains_and_successes_are_counted_once_however_episodes_are_cut(channel):
    channel.publish(Furthest(blind=frozenset({0, 1})))
    made = runner(channel)
    successes = 0
    metered, counted = {"succeeded": 0, "ended": 0}, Counter()
    for _ in range(5):  # more abstains than these would lead to quarantine
        episodes = made.sample(num_timesteps=9)
        for episode in episodes:
            successes += bool(episode.is_done and episode.is_terminated)
        metrics = made.get_metrics()
        metered = {key: before + metrics[key].peek() for key, before in metered.items()}
        counted.update({key: value.peek() for key, value in metrics["reward"].items()})
    assert successes > 0
    assert metered["ended"] >= metered["succeeded"] == successes
    paid = session(made, 2)
    assert counted["abstains"] == sum(position in {0, 1} for _, _, position, *_ in paid.seen) > 0
    assert counted["calls"] == made._paid.counts["calls"] == paid.calls


def test_closing_a_runner_closes_its_sessions(channel):
    made = runner(channel)
    paid = session(made)
    made.stop()
    assert paid.closed


def test_the_sparse_baseline_looks_at_nothing(channel):
    made = runner(channel, mix=Mix(source=0.0, env=1.0))
    episodes = made.sample(num_timesteps=100)
    assert {version for episode in episodes for version in episode.custom_data["reward_version"].tolist()} == {0}
    assert all(env.renders == 0 for env in made.env.unwrapped.envs)
    assert channel.acknowledgements() == {}
    assert listening() == []
