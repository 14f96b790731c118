import threading
from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from carl.episodes.play import rollout
from carl.errors import BoxError, RewardError, TaskError
from carl.rewards.latch import PROGRESS, PROGRESS_SLOTS
from carl.rewards.mix import Mix
from carl.rewards.vector import PaidVectorEnv
from carl.task import Task
from tests.fakes.corridor import CORRIDOR, Corridor, Furthest

RIGHT, LEFT = 1, 0


def rooms(*lengths: int, patience: int = 20) -> SyncVectorEnv:
    make = [partial(Corridor, length, patience) for length in lengths]
    return SyncVectorEnv(make, observation_mode=_widest(lengths))


def _widest(lengths):
    space = gym.spaces.Box(0.0, 1.0, (lengths[0] + 1,), np.float32)
    return gym.vector.utils.batch_space(space, len(lengths)), space


def code_reward(*args, patience: int = 20, **kwargs) -> tuple[PaidVectorEnv, Furthest]:
    source = kwargs.pop("source", Furthest())
    return PaidVectorEnv(rooms(*args, patience=patience), CORRIDOR, source, **kwargs), source


def test_terminal_step_is_judged_on_its_own_frame_and_the_reset_step_pays_nothing():
    env, source = code_reward(4, 4)
    env.reset(seed=0)
    for _ in range(3):
        _, rewards, terminated, _, _ = env.step(np.array([RIGHT, RIGHT]))
        assert not terminated.any()
        np.testing.assert_allclose(rewards, 0.25)
    observations, rewards, terminated, _, info = env.step(np.array([RIGHT, RIGHT]))
    session = source.opened[0]
    assert terminated.all()
    assert info["success"].all()
    assert session.seen[-2:] == [("step", 0, 4, 4, 1), ("step", 1, 4, 4, 1)], "old episode's position and step"
    np.testing.assert_allclose(rewards, 0.25)
    np.testing.assert_allclose(observations[:, 5], 1.0)

    observations, rewards, terminated, truncated, info = env.step(np.array([RIGHT, RIGHT]))
    assert session.seen[-2:] == [("reset", 0, 0, 0, 2), ("reset", 1, 0, 0, 2)]
    assert not (rewards.any())
    assert not (terminated.any())
    assert not (truncated.any())
    assert not (info["success"].any())
    assert not observations[:, 5:].any(), "progress is cleared"
    _, rewards, *_ = env.step(np.array([RIGHT, LEFT]))
    np.testing.assert_allclose(rewards, [0.25, 0.0])


def test_truncated_step_is_judged_before_the_reset():
    env, source = code_reward(4, patience=3)
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.array([RIGHT]))
    _, rewards, terminated, truncated, info = env.step(np.array([RIGHT]))
    assert truncated.all()
    assert not terminated.any()
    assert not info["success"].any()
    np.testing.assert_allclose(rewards, 0.25)
    assert source.opened[0].seen[-1] == ("step", 0, 3, 3, 1)
    env.step(np.array([RIGHT]))
    assert source.opened[0].seen[-1] == ("reset", 0, 0, 0, 2)


def test_slots_end_at_different_times_and_the_session_is_asked_once_a_step():
    env = PaidVectorEnv(SyncVectorEnv([partial(Corridor, 4, n) for n in (2, 3, 20)]), CORRIDOR, source := Furthest())
    env.reset(seed=0)
    history = []
    for _ in range(5):
        before = source.opened[0].calls
        _, rewards, _, truncated, _ = env.step(np.full(3, RIGHT))
        history.append((rewards.tolist(), truncated.tolist(), source.opened[0].calls - before))
    assert [row[1] for row in history] == [
        [False, False, False],
        [True, False, False],
        [False, True, False],
        [False, False, False],
        [True, False, False],
    ]
    assert [row[0] for row in history] == [
        [0.25, 0.25, 0.25],
        [0.25, 0.25, 0.25],
        [0.0, 0.25, 0.25],
        [0.25, 0.0, 0.25],
        [0.25, 0.25, 0.0],
    ]
    assert [row[2] for row in history] == [1, 1, 1, 1, 1], "resets and steps together"


def test_masked_reset_begins_only_the_masked_slots():
    env, source = code_reward(4, 4)
    env.reset(seed=0)
    env.step(np.array([RIGHT, RIGHT]))
    options = {"reset_mask": np.array([True, False])}
    observations, _ = env.reset(options=options)
    assert "reset_mask" in options, "gymnasium takes it out of what it is given"
    assert source.opened[0].seen[-1] == ("reset", 0, 0, 0, 2)
    np.testing.assert_allclose(observations[:, 5], [0.0, 0.25])
    _, rewards, *_ = env.step(np.array([RIGHT, RIGHT]))
    np.testing.assert_allclose(rewards, 0.25)
    assert source.opened[0].seen[-2:] == [("step", 0, 1, 1, 2), ("step", 1, 2, 2, 1)]


def test_a_masked_reset_in_place_of_the_reset_step():
    env, _ = code_reward(2)
    env.reset(seed=0)
    env.step(np.array([RIGHT]))
    assert env.step(np.array([RIGHT]))[2].all()
    env.reset(options={"reset_mask": np.array([True])})
    _, rewards, *_ = env.step(np.array([RIGHT]))
    assert rewards[0] > 0, "the step after a masked reset is an ordinary step"


def test_a_new_version_is_adopted_at_each_slots_next_episode_and_the_old_session_then_closed():
    old, new = Furthest(), Furthest(scale=10.0)
    env = PaidVectorEnv(SyncVectorEnv([partial(Corridor, 4, n) for n in (2, 4)]), CORRIDOR, old, version=7)
    env.reset(seed=0)
    env.set_source(8, new)
    versions, rewards = [], []
    for _ in range(6):
        _, reward, _, _, info = env.step(np.full(2, RIGHT))
        versions.append(info["reward_version"].tolist())
        rewards.append(reward.tolist())
        assert old.opened[0].closed == (versions[-1] == [8, 8])
    assert versions == [[7, 7], [7, 7], [8, 7], [8, 7], [8, 8], [8, 8]]
    assert rewards == [[0.25, 0.25], [0.25, 0.25], [0.0, 0.25], [2.5, 0.25], [2.5, 0.0], [0.0, 2.5]]
    env.close()
    assert new.opened[0].closed


def test_a_version_nobody_adopted_is_closed_when_replaced():
    env, _ = code_reward(4)
    env.reset(seed=0)
    env.set_source(2, skipped := Furthest())
    env.set_source(3, Furthest())
    assert skipped.opened[0].closed
    assert env.version == 3


def test_a_source_that_cannot_open_leaves_the_old_one_in_charge():
    class Broken(Furthest):
        def open(self, slots):
            raise RuntimeError("no")

    env, _ = code_reward(4)
    env.reset(seed=0)
    with pytest.raises(RewardError, match=r"reward furthest-1\.0: opening it raised RuntimeError: no; mend the source"):
        env.set_source(2, Broken())
    _, rewards, _, _, info = env.step(np.array([RIGHT]))
    assert info["reward_version"] == [1]
    assert rewards == [0.25]


def test_abstains_are_told_and_earn_nothing():
    env, _ = code_reward(4, source=Furthest(blind=frozenset({1})))
    env.reset(seed=0)
    _, rewards, _, _, info = env.step(np.array([RIGHT]))
    assert info["abstained"].tolist() == [True]
    assert rewards.tolist() == [0.0]
    _, rewards, _, _, info = env.step(np.array([RIGHT]))
    assert info["abstained"].tolist() == [False]
    assert rewards.tolist() == [0.5]


def test_mixing_in_the_environments_reward():
    env, _ = code_reward(2, source=Furthest(length=2), mix=Mix(env=3.0, shows=PROGRESS))
    env.reset(seed=0)
    env.step(np.array([RIGHT]))
    _, rewards, _, _, info = env.step(np.array([RIGHT]))
    assert rewards.tolist() == [3.5]
    assert info["env_reward"].tolist() == [1.0]


def test_sparse_takes_no_frames():
    env, source = code_reward(2, mix=Mix(0.0, 1.0))
    observations, _ = env.reset(seed=0)
    env.step(np.array([RIGHT]))
    _, rewards, _, _, info = env.step(np.array([RIGHT]))
    assert rewards.tolist() == [1.0]
    assert info["success"].tolist() == [True]
    assert info["reward_version"].tolist() == [0]
    assert observations.shape == (1, 3)
    assert env.unwrapped.envs[0].renders == 0
    assert not source.opened


def test_sparse_with_progress_sees_progress_and_is_paid_by_the_environment():
    env, _ = code_reward(2, source=Furthest(length=2), mix=Mix(0.0, 1.0, PROGRESS))
    env.reset(seed=0)
    observations, rewards, *_ = env.step(np.array([RIGHT]))
    assert rewards.tolist() == [0.0]
    assert observations[0, 3] == 0.5
    assert env.step(np.array([RIGHT]))[1].tolist() == [1.0]


def test_observation_space_fits_the_observations():
    env, _ = code_reward(4, 4)
    observations, _ = env.reset(seed=0)
    assert observations.dtype == np.float32
    assert observations.shape == (2, 5 + PROGRESS_SLOTS)
    assert env.observation_space.contains(observations)
    assert env.single_observation_space.contains(observations[0])


def test_nothing_large_travels_in_info():
    env, _ = code_reward(4, 4)
    _, at_reset = env.reset(seed=0)
    for info in (at_reset, env.step(np.array([RIGHT, RIGHT]))[-1]):
        assert {key for key in info if not key.startswith("_")} == {
            "reward_version",
            "abstained",
            "env_reward",
            "success",
            "cut",
        }
        assert all(value.shape == (2,) for value in info.values())


def test_idle_slots_are_not_looked_at():
    env, source = code_reward(4, 4)
    env.reset(seed=0)
    env.idle[0] = True
    _, rewards, *_ = env.step(np.array([RIGHT, RIGHT]))
    assert rewards.tolist() == [0.0, 0.25]
    assert [row[1] for row in source.opened[0].seen if row[0] == "step"] == [1]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused_on_the_instance(mode):
    envs = SyncVectorEnv([Corridor], autoreset_mode=mode)
    SyncVectorEnv([Corridor])  # writes NEXT_STEP into the metadata that all share
    with pytest.raises(TaskError, match="NEXT_STEP"):
        PaidVectorEnv(envs, CORRIDOR, Furthest())


class Sees(gym.ObservationWrapper):
    """The corridor's observation in another space, which ``what`` makes it fit."""

    def __init__(self, space, what):
        super().__init__(Corridor())
        self.observation_space, self.what = space, what

    def observation(self, observation):
        return self.what(observation)


PICTURE = gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)
FLAT = gym.spaces.Box(0.0, 1.0, (5,), np.float64)


@pytest.mark.parametrize(
    ("space", "what", "parts"),
    [
        (PICTURE, lambda seen: np.zeros((4, 4, 3), np.uint8), {"observation": (2, 4, 4, 3)}),
        (gym.spaces.Discrete(5), lambda seen: seen.argmax(), {"observation": (2,)}),
        (gym.spaces.Dict(here=FLAT), lambda seen: {"here": seen.astype(float)}, {"here": (2, 5)}),
    ],
    ids=["picture", "discrete", "dict"],
)
def test_progress_is_a_part_beside_observations_that_are_no_vectors(space, what, parts):
    envs = SyncVectorEnv([lambda: Sees(space, what)] * 2)
    env = PaidVectorEnv(envs, CORRIDOR, Furthest())
    before, _ = env.reset(seed=0)
    after = env.step(np.array([RIGHT, LEFT]))[0]
    assert {key: value.shape for key, value in after.items()} == {**parts, "progress": (2, PROGRESS_SLOTS)}
    assert after in env.observation_space
    assert before["progress"][:, 0].tolist() == [0.0, 0.0], "what was observed does not change later"
    assert after["progress"][:, 0].tolist() == [0.25, 0.0]


def test_vectors_of_other_floats_are_cast_where_progress_is_appended():
    env = PaidVectorEnv(SyncVectorEnv([lambda: Sees(FLAT, lambda seen: seen.astype(float))]), CORRIDOR, Furthest())
    assert env.reset(seed=0)[0].dtype == env.single_observation_space.dtype == np.float32


def test_a_part_of_that_name_leaves_no_room_for_progress():
    envs = SyncVectorEnv([lambda: Sees(gym.spaces.Dict(progress=FLAT), lambda seen: {"progress": seen})])
    with pytest.raises(TaskError, match=r"reward\.progress_in_observation=false"):
        PaidVectorEnv(envs, CORRIDOR, Furthest())


def test_the_tasks_camera_takes_the_frames_and_is_checked():
    blind = Task(name="blind", description="", make=Corridor, camera=lambda env: None)
    with pytest.raises(TaskError, match="rgb_array"):
        PaidVectorEnv(rooms(4), blind, Furthest()).reset(seed=0)


def test_success_is_the_tasks_word():
    task = Task(name="t", description="", make=Corridor, success=lambda reward, terminated, truncated, info: truncated)
    env = PaidVectorEnv(rooms(4, patience=1), task, Furthest())
    env.reset(seed=0)
    assert env.step(np.array([LEFT]))[-1]["success"].tolist() == [True]


class Telling(Corridor):
    """Puts in its info what ``tell`` makes of its position."""

    tell = staticmethod(lambda position: {})

    def step(self, action):
        *stepped, _ = super().step(action)
        return *stepped, type(self).tell(self.position)


HABITS = {
    "a bool that is compared by identity": (lambda at: {"won": at == 4}, lambda info: info["won"] is True),
    "a number, then a word": (lambda at: {"event": "goal" if at == 4 else 0}, lambda info: info["event"] == "goal"),
    "an array that grows": (lambda at: {"seen": np.arange(at)}, lambda info: len(info["seen"]) == 4),
    "a list that grows": (lambda at: {"seen": [0] * at}, lambda info: len(info["seen"]) == 4),
    "an integer, then a share": (lambda at: {"done": at / 4 if at else 0}, lambda info: info["done"] == 1.0),
    "a key at the end alone": (lambda at: {"won": "yes"} if at == 4 else {}, lambda info: info.get("won") == "yes"),
    "a key with an underscore": (lambda at: {"_won": at == 4}, lambda info: bool(info["_won"])),
    "a dict, then a word": (lambda at: {"a": {"b": at} if at < 4 else "won"}, lambda info: info["a"] == "won"),
    "the very object": (lambda at: {"all": (at, {"x": [at]})}, lambda info: info["all"] == (4, {"x": [4]})),
}


@pytest.mark.parametrize("habit", HABITS)
def test_success_is_read_from_the_environments_own_info_alone_and_in_a_vector_alike(habit):
    tell, won = HABITS[habit]
    kind = type("Told", (Telling,), {"tell": staticmethod(tell)})
    task = Task("told", "", kind, expert=lambda env: lambda seen: RIGHT, success=lambda *step: won(step[3]))
    assert rollout(task, 0, "expert").success
    env = PaidVectorEnv(SyncVectorEnv([kind] * 3), task, Furthest())
    env.reset(seed=0)
    successes = [env.step(np.array([LEFT, RIGHT, RIGHT]))[4]["success"].tolist() for _ in range(5)]
    assert successes == [[False] * 3] * 3 + [[False, True, True]] + [[False] * 3], "nothing is won by the reset"


def test_what_cannot_be_batched_travels_as_objects():
    kind = type("Told", (Telling,), {"tell": staticmethod(lambda at: {"at": at, "seen": np.arange(at)})})
    env = PaidVectorEnv(SyncVectorEnv([kind] * 3), CORRIDOR, Furthest())
    env.reset(seed=0)
    env.step(np.array([RIGHT, LEFT, RIGHT]))
    info = env.step(np.array([RIGHT, RIGHT, LEFT]))[4]
    assert info["at"].tolist() == [2, 1, 0]
    assert [seen.tolist() for seen in info["seen"]] == [[0, 1], [0], []]
    assert info["_seen"].all()


def test_infos_of_other_processes_reach_success_too():
    task = replace(CORRIDOR, make=Won, success=lambda *step: step[3].get("won") is True)
    env = PaidVectorEnv(AsyncVectorEnv([Won] * 2), task, mix=Mix(0.0, 1.0))
    try:
        env.reset(seed=0)
        successes = [env.step(np.array([LEFT, RIGHT]))[4]["success"].tolist() for _ in range(4)]
        assert successes == [[False, False]] * 3 + [[False, True]]
    finally:
        env.close()


class Won(Telling):
    tell = staticmethod(lambda position: {"won": position == 4})


class Batched(gym.vector.VectorEnv):
    """A vector environment without sub-environments."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012  gymnasium's convention
    num_envs = 2
    single_observation_space = gym.spaces.Box(0.0, 1.0, (3,), np.float32)
    single_action_space = gym.spaces.Discrete(2)


def test_a_vector_without_infos_of_its_slots_is_refused():
    with pytest.raises(TaskError, match="does not hand on its sub-environments' own info"):
        PaidVectorEnv(Batched(), CORRIDOR, mix=Mix(0.0, 1.0))


# Numbers that are none


class Failing(Corridor):
    """Gives ``number`` where ``what`` says, at position 2."""

    def __init__(self, what: str, number: float) -> None:
        super().__init__()
        self.what, self.number = what, number
        if what == "dict":
            self.observation_space = gym.spaces.Dict(at=self.observation_space, count=gym.spaces.Discrete(9))

    def step(self, action):
        observation, reward, *ended = super().step(action)
        return observation, self.number if self.what == "reward" and self.position == 2 else reward, *ended

    def _observation(self):
        found = super()._observation()
        if self.position == 2 and self.what != "reward":
            found[3] = self.number
        return {"at": found, "count": self.position} if self.what == "dict" else found


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("observation", r"the observation of slot 1 is {} at \[3\] in step 2 "),
        ("dict", r"the observation\['at'\] of slot 1 is {} at \[3\] in step 2 "),
        ("reward", "the environment's reward of slot 1 is {} in step 2 "),
    ],
)
def test_a_number_that_is_none_is_named_where_it_first_appears(what, words, number):
    env = PaidVectorEnv(SyncVectorEnv([partial(Failing, what, number)] * 2), CORRIDOR, mix=Mix(0.0, 1.0))
    env.reset(seed=0)
    env.step(np.array([LEFT, RIGHT]))
    with pytest.raises(TaskError, match=r"'corridor': " + words.format(number)):
        env.step(np.array([RIGHT, RIGHT]))


def test_an_environments_reward_that_is_none_ends_it_whatever_its_weight():
    env = PaidVectorEnv(
        SyncVectorEnv([partial(Failing, "reward", np.nan)]), CORRIDOR, Furthest(), mix=Mix(env=0.0, shows=PROGRESS)
    )
    env.reset(seed=0)
    env.step(np.array([RIGHT]))
    with pytest.raises(TaskError, match="environment's reward of slot 0 is nan"):
        env.step(np.array([RIGHT]))


def test_a_source_that_pays_a_number_that_is_none_is_named():
    env, _ = code_reward(4, 4, source=Furthest(scale=np.inf))
    with np.errstate(all="ignore"):
        env.reset(seed=0)
    with (
        np.errstate(all="ignore"),
        pytest.raises(RewardError, match=r"furthest-inf: the source's reward of slot 0 is (nan|inf) in step 1"),
    ):
        env.step(np.array([RIGHT, RIGHT]))


def test_an_initial_observation_that_is_none_is_named():
    class Unset(Corridor):
        def _observation(self):
            return np.full(5, np.nan, np.float32)

    with pytest.raises(TaskError, match=r"observation of slot 0 is nan at \[0\] in step 0"):
        PaidVectorEnv(SyncVectorEnv([Unset]), CORRIDOR, Furthest()).reset(seed=0)


# Episodes without end


def test_an_episode_that_never_ends_is_truncated_and_begun_anew(monkeypatch):
    monkeypatch.setattr("carl.task.LONGEST", 3)
    env, source = code_reward(4, 4, patience=1_000)
    env.reset(seed=0)
    env.unwrapped.envs[0].position = 2
    ends = []
    for _ in range(6):
        _, _, terminated, truncated, info = env.step(np.array([RIGHT, LEFT]))
        ends.append((terminated.tolist(), truncated.tolist(), info["cut"].tolist()))
    no = [False, False]
    assert ends == [
        (no, no, no),
        ([True, False], no, no),
        (no, [False, True], [False, True]),
        (no, no, no),
        (no, no, no),
        (no, [True, False], [True, False]),
    ]
    seen = [row for row in source.opened[0].seen if row[1] == 1]
    assert [row[0] for row in seen] == ["reset", "step", "step", "step", "reset", "step", "step"]
    assert [row[4] for row in seen] == [1, 1, 1, 1, 2, 2, 2], "the last frame is the old episode's"
    assert env.cut == env.counts["cut"] == 2


def test_success_hears_that_an_episode_was_cut(monkeypatch):
    monkeypatch.setattr("carl.task.LONGEST", 2)
    survives = Task("t", "", Corridor, success=lambda reward, terminated, truncated, info: truncated)
    env = PaidVectorEnv(rooms(9, patience=1_000), survives, Furthest())
    env.reset(seed=0)
    assert [bool(env.step(np.array([RIGHT]))[4]["success"][0]) for _ in range(2)] == [False, True]


def test_idle_slots_are_not_cut(monkeypatch):
    monkeypatch.setattr("carl.task.LONGEST", 2)
    env, _ = code_reward(9, 9, patience=1_000)
    env.reset(seed=0)
    env.idle[0] = True
    cut = [env.step(np.array([LEFT, LEFT]))[4]["cut"].tolist() for _ in range(3)]
    assert cut == [[False, False], [False, True], [False, False]]


class Interrupted(np.ndarray):
    """Versions of slots; while they are written, another thread runs ``meanwhile``."""

    meanwhile: threading.Thread

    def __setitem__(self, key, value):
        if self.meanwhile.ident is None:
            self.meanwhile.start()
            self.meanwhile.join(0.2)
        super().__setitem__(key, value)


def test_a_source_that_another_thread_hands_over_closes_none_that_is_just_being_adopted():
    env, _ = code_reward(1)
    second, third = Furthest(scale=2.0), Furthest(scale=3.0)
    env.reset(seed=0)
    assert env.step(np.array([RIGHT]))[2].all()
    env.set_source(2, second)
    env._payers.versions = env._payers.versions.view(Interrupted)
    env._payers.versions.meanwhile = threading.Thread(target=env.set_source, args=(3, third))
    env.step(np.array([RIGHT]))
    env._payers.versions.meanwhile.join(10)
    assert not second.opened[0].closed
    _, rewards, *_, info = env.step(np.array([RIGHT]))
    assert (rewards.tolist(), info["reward_version"].tolist(), env.version) == ([0.5], [2], 3)
    env.step(np.array([RIGHT]))
    assert second.opened[0].closed
    assert env.step(np.array([RIGHT]))[1].tolist() == [0.75]


def test_a_source_that_comes_after_the_end_is_closed_again():
    env, _ = code_reward(4)
    env.close()
    env.set_source(2, source := Furthest())
    assert source.opened[0].closed


def test_a_session_whose_process_stays_away_is_no_abstain(monkeypatch):
    """Whoever steps has to know: a whole training without a reward would look like one that learns nothing."""
    env, source = code_reward(2, 2)
    env.reset(seed=0)

    def break_down(seen):
        raise BoxError("no more processes")

    monkeypatch.setattr(source.opened[0], "look", break_down)
    with pytest.raises(BoxError, match="no more processes"):
        env.step(np.full(2, RIGHT))
    assert env.abstains == 0


def test_frames_that_were_judged_are_counted():
    env, _ = code_reward(2, 2)
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.full(2, RIGHT))
    assert (env.counts["judged"], env.counts["abstains"]) == (2 + 3 * 2, 0)
    env.idle[1] = True
    env.step(np.full(2, RIGHT))
    assert env.counts["judged"] == 9, "nobody is asked about an idle slot"
