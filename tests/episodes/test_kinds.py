"""Episodes of a resting agent, of half-trained play, and of expert play that is cut off."""

import time
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from carl.config import VerifyConfig
from carl.episodes.collect import Plan, collect, collect_as, collect_part, read_in_parallel
from carl.episodes.kinds import CONTINUED, Cut, Mixed, Resting, at_rest, cut_at, events, rare_actions
from carl.episodes.missing import Missing, Unobtainable
from carl.episodes.play import attempt, made
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.task import Task
from carl.tasks import get_task
from carl.verification import Case, Evidence
from carl.verification.soundness import Soundness
from tests.fakes.corridor import CORRIDOR, Corridor
from tests.verification.episodes import program

DOOR = get_task("DoorKey-5x5")
PICK_UP, TOGGLE = 3, 5
RARE = frozenset({PICK_UP, TOGGLE})
SEEDS = list(range(12))


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> TrajectoryStore:
    return collect(DOOR, SEEDS, "expert", str(tmp_path_factory.mktemp("experts")))


def cut(task: Task, experts: TrajectoryStore, place: Path) -> TrajectoryStore:
    return collect_as(task, SEEDS, "cut", Cut(experts, SEEDS, RARE), str(place))


def equal(one: Trajectory, other: Trajectory) -> bool:
    return np.array_equal(one.actions, other.actions) and np.array_equal(one.frames, other.frames)


def test_a_resting_agent_repeats_each_action_in_turn(tmp_path: Path) -> None:
    episodes = collect_as(DOOR, SEEDS, "resting", Resting(SEEDS, 9), str(tmp_path)).read()
    assert [set(episode.actions.tolist()) for episode in episodes] == [{turn % 7} for turn in range(12)]
    assert {(len(episode), episode.role, episode.success) for episode in episodes} == {(9, "resting", False)}


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (gym.spaces.Discrete(3, start=5), 7),
        (gym.spaces.Box(-1, 1, (2,), np.float32), [0, 0]),
        (gym.spaces.Box(0.5, 1, (1,), np.float32), [0.5]),
        (gym.spaces.MultiDiscrete([2, 3]), [0, 0]),
        (gym.spaces.MultiBinary(2), [0, 0]),
    ],
)
def test_how_an_agent_rests(space: gym.Space, action: object) -> None:
    resting = at_rest(space, 2)
    assert space.contains(resting)
    assert np.asarray(resting).tolist() == action


def test_half_trained_play_is_the_experts_in_part(tmp_path: Path) -> None:
    stores = [collect_as(DOOR, SEEDS, "mixed", Mixed(60), str(tmp_path / name)) for name in "ab"]
    episodes, again = (store.read() for store in stores)
    assert all(equal(one, other) for one, other in zip(episodes, again, strict=True))
    assert {episode.role for episode in episodes} == {"mixed"}
    solved = sum(episode.success for episode in episodes)
    assert solved > 4, "an expert that plans anew gets there"
    lengths = [len(episode) for episode in collect(DOOR, SEEDS, "expert", str(tmp_path / "experts"))]
    assert sum(map(len, episodes)) > 1.2 * sum(lengths), "and takes longer"


def broken(when: int, how: object) -> Task:
    """A corridor whose expert knows ``when`` actions."""

    def expert(env: gym.Env):
        left = [1] * when

        def act(observation):
            if not left:
                if isinstance(how, Exception):
                    raise how
                return how
            return left.pop()

        return act

    return replace(CORRIDOR, make=lambda: Corridor(length=30, patience=50), expert=expert)


@pytest.mark.parametrize("how", [IndexError("pop from an empty list"), StopIteration(), None, 99])
def test_an_expert_that_is_led_astray_ends_its_episode_unsolved(tmp_path: Path, how: object) -> None:
    episodes = collect_as(broken(5, how), [3, 4], "mixed", Mixed(40), str(tmp_path)).read()
    assert [(len(episode), episode.success, episode.terminated) for episode in episodes] == [(5, False, False)] * 2


def test_an_expert_that_knows_no_first_action_leaves_an_episode_of_one_step(tmp_path: Path) -> None:
    (episode,) = collect_as(broken(0, None), [3], "mixed", Mixed(40), str(tmp_path)).read()
    assert (len(episode), episode.success) == (1, False)


def test_without_an_expert_half_trained_play_is_missing_and_the_store_says_why(tmp_path: Path) -> None:
    task = replace(DOOR, expert=None, demonstrations="somewhere")
    collect_as(task, SEEDS, "mixed", Mixed(60), str(tmp_path))
    found = read_in_parallel(TrajectoryStore(tmp_path))
    assert isinstance(found, Missing)
    assert "demonstrations" in found.why
    assert list(found) == []


def test_expert_play_is_cut_off_and_played_on(experts: TrajectoryStore, tmp_path: Path) -> None:
    episodes, whole = cut(DOOR, experts, tmp_path).read(), experts.read()
    for index, (episode, expert) in enumerate(zip(episodes, whole, strict=True)):
        ends = events(expert, RARE)
        at = cut_at(index, ends, np.random.default_rng(episode.seed))
        assert (episode.role, episode.seed) == ("cut", expert.seed)
        assert np.array_equal(episode.frames[: at + 1], expert.frames[: at + 1])
        assert episode.success or episode.terminated or len(episode) == at + CONTINUED
        if index % 3 == 0:
            assert 1 <= ends[2 - index // 6] - at <= 3, "a near miss of the end, and of the door"
        if index % 2:
            assert set(episode.actions[at:].tolist()) <= set(DOOR.idle)
            assert not episode.success
    assert any(len(set(episode.actions[-CONTINUED:].tolist())) > 2 for episode in episodes[::2])


def test_events_are_found_where_an_oracle_sees_them() -> None:
    with made(DOOR, 0) as env:
        episodes = [attempt(DOOR, env, seed, "expert", with_events=True) for seed in SEEDS]
    assert rare_actions([episode.actions for episode in episodes]) >= RARE
    for episode in episodes:
        first = [int(happened.argmax()) for happened in episode.events.values()]
        assert events(episode, RARE) == first
    assert rare_actions([np.zeros((5, 2), np.float32)]) == frozenset()


def test_near_misses_lie_before_each_event_at_random_and_idly() -> None:
    rng = np.random.default_rng(0)
    found = {
        (event, index % 2)
        for index in range(0, 18, 3)
        for event in (4, 9, 14)
        if 1 <= event - cut_at(index, [4, 9, 14], rng) <= 3
    }
    assert found == {(event, turn) for event in (4, 9, 14) for turn in (0, 1)}


def test_without_rare_actions_an_event_is_where_the_picture_leaps() -> None:
    frames = np.zeros((7, 8, 8, 3), np.uint8)
    for step in range(1, 7):
        frames[step] = frames[step - 1]
        frames[step, step, :1] = 200
    frames[4:, :, 4:] = 90
    episode = Trajectory(frames, np.zeros((6, 1), np.float32), np.zeros(6), True, False, True, 0, "expert", {})
    assert events(episode, frozenset()) == [4, 6]


def test_a_process_returns_why_there_can_be_no_episodes(tmp_path: Path) -> None:
    """Ray prints a traceback for every task that raises but the first."""
    plan = Plan(
        replace(DOOR, expert=None, demonstrations="somewhere"),
        "mixed",
        TrajectoryStore(str(tmp_path / "mixed")),
        Mixed(5),
    )
    found = collect_part(plan, [0], tmp_path / "note")
    assert isinstance(found, Unobtainable)
    assert "and no expert" in str(found)


def test_recorded_play_that_cannot_be_repeated_is_missing_and_says_so(experts: TrajectoryStore, tmp_path: Path) -> None:
    shown = experts.read()
    other = TrajectoryStore(tmp_path / "other")
    other.write([replace(episode, seed=episode.seed + 100) for episode in shown])
    seeds = [seed + 100 for seed in SEEDS]
    store = collect_as(DOOR, seeds, "cut", Cut(other, seeds), str(tmp_path / "cut"))
    found = read_in_parallel(TrajectoryStore(store.uri))
    assert isinstance(found, Missing)
    assert "seed 100 again does not give its frames" in found.why


class Slow(Corridor):
    """Takes ten milliseconds for a step, and as long for a picture."""

    def step(self, action):
        time.sleep(0.01)
        return super().step(action)

    def render(self):
        time.sleep(0.01)
        return super().render()


def test_what_a_step_and_its_picture_take_is_kept_with_the_store(tmp_path: Path) -> None:
    store = collect(replace(CORRIDOR, make=Slow), [1], "random", str(tmp_path), 3)
    kept = TrajectoryStore(store.uri)[0].step_seconds
    assert kept is not None
    assert kept > 0.02
    case = Case(program("def progress(frame, initial):\n    return 0.0\n"))
    assert case.step_seconds is None
    soundness = Soundness.of(VerifyConfig())
    soundness.add(Evidence.RANDOMS, store)
    assert soundness.step_seconds == kept
    rewritten = TrajectoryStore(tmp_path / "without")
    rewritten.write(replace(episode, step_seconds=None) for episode in store)
    assert rewritten[0].step_seconds is None


def test_a_kind_is_recorded_alike_in_one_environment_and_alone(experts: TrajectoryStore, tmp_path: Path) -> None:
    together = cut(DOOR, experts, tmp_path).read()
    with made(DOOR, 0) as env:
        assert equal(Cut(experts, SEEDS, RARE)(DOOR, env, 7), together[7])
