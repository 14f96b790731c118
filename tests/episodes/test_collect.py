"""Rollouts alone and in parallel: the seeds asked for, in order, with faults laid at the right door."""

import os
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from carl.cameras import Shrunk
from carl.episodes.collect import allowed_failures, collect, read_in_parallel
from carl.episodes.play import attempt, made, rollout
from carl.episodes.sizes import announce
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import StoreError, TaskError
from carl.seeding import Role, seeds_of
from carl.task import Task
from carl.tasks import get_task
from tests.fakes.corridor import COIN_FLIP, CoinFlip, Corridor

DOOR = get_task("DoorKey-5x5")


class PushRight:
    """The corridor's expert."""

    def __init__(self, env: gym.Env) -> None:
        self.world = env.unwrapped

    def __call__(self, observation: object) -> int:
        return 1


CORRIDOR = Task(name="corridor", description="Walk to the right end.", make=Corridor, expert=PushRight)


# One episode


def test_the_last_frame_is_taken_before_any_reset() -> None:
    trajectory = rollout(CORRIDOR, 3, "expert")
    positions, steps, episodes = trajectory.frames[:, 0, 0].T
    assert positions.tolist() == steps.tolist() == [0, 1, 2, 3, 4]
    assert set(episodes.tolist()) == {1}
    assert trajectory.rewards.tolist() == [0, 0, 0, 1]
    assert (trajectory.terminated, trajectory.truncated, trajectory.success) == (True, False, True)


def test_random_play_is_cut_and_says_so() -> None:
    trajectory = rollout(DOOR, 5, "random", max_steps=7)
    assert len(trajectory) == 7
    assert (trajectory.terminated, trajectory.truncated, trajectory.success) == (False, False, False)
    assert trajectory.role == "random"


def test_random_play_is_uniform_over_actions() -> None:
    actions = np.concatenate([rollout(DOOR, seed, "random", 100).actions for seed in range(20)])
    shares = np.bincount(actions, minlength=7) / len(actions)
    assert np.abs(shares - 1 / 7).max() < 0.04


def test_other_seeds_play_otherwise() -> None:
    assert not np.array_equal(rollout(DOOR, 1, "random", 40).actions, rollout(DOOR, 2, "random", 40).actions)


def test_events_are_recorded_only_when_asked_for() -> None:
    assert rollout(DOOR, 1, "expert").events == {}
    events = rollout(DOOR, 1, "expert", with_events=True)
    assert set(events.events) == {"key carried", "door open", "goal reached"}
    assert all(len(event) == len(events) + 1 for event in events.events.values())


class Canvas(Corridor):
    """Draws into one array that it hands out every time."""

    def __init__(self) -> None:
        super().__init__()
        self.canvas = np.zeros((8, 8, 3), np.uint8)

    def render(self) -> np.ndarray:
        self.canvas[:] = super().render()
        return self.canvas


def test_frames_are_copied_when_they_are_kept() -> None:
    frames = rollout(replace(CORRIDOR, make=Canvas), 1, "expert").frames
    assert frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_frames_of_a_long_episode_are_all_kept() -> None:
    long = replace(CORRIDOR, make=lambda: Corridor(length=200, patience=1000))
    frames = rollout(long, 1, "expert").frames
    assert frames[:, 0, 0, 0].tolist() == list(range(201))
    assert frames.base is None or frames.base.nbytes == frames.nbytes, "nothing larger is kept alive"


class Pushed(Corridor):
    """Takes actions of any space, which it checks and then changes; whatever it takes is a step to the right."""

    def __init__(self, space: gym.Space) -> None:
        super().__init__()
        self.action_space = space
        self.taken: list[object] = []

    def step(self, action):
        assert self.action_space.contains(action)
        self.taken.append(action)
        if isinstance(action, np.ndarray):
            action[...] = 0
        return super().step(1)


def acting(space: gym.Space, *actions: object) -> Task:
    """The corridor with actions in ``space``, whose expert writes ``actions`` and repeats the last."""

    def expert(env: gym.Env):
        left = list(actions)
        return lambda observation: left.pop(0) if len(left) > 1 else left[0]

    return replace(CORRIDOR, make=lambda: Pushed(space), expert=expert)


@pytest.mark.parametrize(
    ("space", "written", "kept"),
    [
        (gym.spaces.Discrete(3), [1, 1.0, np.float32(1), np.array(1)], [1, 1, 1, 1]),
        (gym.spaces.Discrete(3, start=5), [[6], np.array([7]), True + 5, np.uint8(5)], [6, 7, 6, 5]),
        (gym.spaces.Box(-2, 2, (1,), np.float32), [1, 0.5, [1], np.float64(0.25)], [[1], [0.5], [1], [0.25]]),
        (gym.spaces.Box(-2, 2, (1, 2), np.float64), [[1, 0], ([0.5, 1],)], [[[1, 0]], *[[[0.5, 1]]] * 3]),
        (gym.spaces.Box(-np.inf, np.inf, (2,), np.float32), [(9, 1e9)], [[9, 1e9]] * 4),
        (gym.spaces.MultiBinary(2), [[True, False], [0, 1]], [[1, 0], [0, 1], [0, 1], [0, 1]]),
        (gym.spaces.MultiDiscrete([2, 3]), [[1.0, 2.0]], [[1, 2]] * 4),
    ],
    ids=lambda value: str(value) if isinstance(value, gym.Space) else "",
)
def test_actions_are_kept_as_their_space_has_them(space: gym.Space, written: list[object], kept: list[object]) -> None:
    actions = rollout(acting(space, *written), 0, "expert").actions
    assert (actions.dtype, actions.shape) == (space.dtype, (4, *space.shape))
    assert actions.tolist() == kept, "what the environment does with an action afterwards changes nothing"


def test_of_an_action_with_parts_their_numbers_are_kept_one_after_the_other() -> None:
    parts = {"turn": gym.spaces.Discrete(2, start=5), "force": gym.spaces.Box(-1, 1, (1, 2), np.float32)}
    both = gym.spaces.Tuple((gym.spaces.Dict(parts), gym.spaces.MultiBinary(2)))
    action = ({"force": [[0.5, -1]], "turn": 6.0}, [True, 0])
    assert rollout(acting(both, action), 0, "expert").actions.tolist() == [[0.5, -1, 6, 1, 0]] * 4


def test_experts_that_write_numbers_in_several_ways_fill_one_store(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    ways = iter([1, 1.0, np.float32(1), [1], True])

    def expert(env: gym.Env):
        way = next(ways)
        return lambda observation: way

    task = replace(CORRIDOR, expert=expert)
    assert {t.actions.dtype for t in collect(task, range(5), "expert", str(tmp_path))} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("space", "action", "reason"),
    [
        (gym.spaces.Discrete(3), 3, r"action 3, which is outside Discrete\(3\)"),
        (gym.spaces.Discrete(3), 0.5, "action 0.5, which cannot be cast to Discrete"),
        (gym.spaces.MultiBinary(2), [257, 0], r"\[257, 0\], which cannot be cast"),
        (gym.spaces.Discrete(3), "1", "action '1', which cannot be cast"),
        (gym.spaces.Discrete(3), None, "action None, which cannot be cast"),
        (gym.spaces.Box(-1, 1, (2,), np.float32), [0.5], r"action \[0.5\], which cannot be cast"),
        (gym.spaces.Box(-1, 1, (2,), np.float32), [[1], [1, 2]], "which cannot be cast"),
        (gym.spaces.Box(-1, 1, (2,), np.float32), [0.5, 1.5], "which is outside Box"),
        (gym.spaces.Box(-np.inf, np.inf, (1,), np.float32), np.nan, "action nan, which cannot be cast to Box"),
        (gym.spaces.Text(2), "go", "acts in Text.* which is not of numbers"),
        (gym.spaces.Dict(a=gym.spaces.Discrete(2)), {"b": 1}, "for 'a' gave the action None, which cannot be cast"),
        (gym.spaces.Tuple((gym.spaces.Discrete(2),)), (2,), r"for \[0\] gave the action 2, which is outside Disc"),
    ],
)
def test_an_action_that_is_none_is_named(space: gym.Space, action: object, reason: str) -> None:
    with pytest.raises(TaskError, match=rf"^task 'corridor': its expert in the episode of seed 7 .*{reason}"):
        rollout(acting(space, action), 7, "expert")


@pytest.mark.parametrize("what", ["observation", "reward"])
def test_a_number_that_is_none_is_named_with_its_step(what: str) -> None:
    class Failing(Corridor):
        def step(self, action: int):
            observation, reward, *rest = super().step(action)
            wrong = np.nan if self.steps == 3 else 0
            return (
                (observation + wrong, reward, *rest) if what == "observation" else (observation, reward + wrong, *rest)
            )

    with pytest.raises(TaskError, match=f"'corridor': the {what} in step 3 of the episode of seed 7 holds NaN"):
        rollout(replace(CORRIDOR, make=Failing), 7, "random")


class Unlit(Corridor):
    """Shows the same whatever happens."""

    def render(self) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize("length", [1, 4])
def test_a_solved_episode_in_which_nothing_is_seen_to_change_says_so(length: int) -> None:
    unlit = replace(CORRIDOR, make=lambda: Unlit(length))
    with pytest.raises(TaskError, match=rf"'corridor': the {length + 1} frames of the .* seed 3 are all alike"):
        rollout(unlit, 3, "expert")
    assert len(rollout(unlit, 3, "random", 4)) <= 4, "random play may change nothing"


def test_one_step_that_changes_one_pixel_is_an_episode() -> None:
    assert len(rollout(replace(CORRIDOR, make=lambda: Corridor(length=1)), 0, "expert")) == 1


# Whose fault it was


def test_a_failing_expert_is_named_with_its_seed() -> None:
    lost = replace(CORRIDOR, make=lambda: Corridor(length=50, patience=10))
    with pytest.raises(TaskError, match=r"'corridor'.*expert failed.*seed 77"):
        rollout(lost, 77, "expert")


def test_an_episode_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carl.task.LONGEST", 30)
    endless = replace(CORRIDOR, make=lambda: Corridor(length=1000, patience=1000))
    trajectory = rollout(endless, 0, "random")
    assert (len(trajectory), trajectory.terminated, trajectory.truncated) == (30, False, True), "as a vector cuts it"
    survivor = replace(endless, success=lambda reward, terminated, truncated, info: truncated)
    assert rollout(survivor, 0, "expert").success


def test_a_task_without_expert_says_so() -> None:
    with pytest.raises(TaskError, match="no expert to play; give it one, or demonstrations"):
        rollout(replace(CORRIDOR, expert=None), 0, "expert")


@pytest.mark.filterwarnings("ignore:.*render")
def test_an_environment_without_rgb_frames_is_told_what_to_do() -> None:
    with pytest.raises(TaskError, match="render_mode='rgb_array'"):
        rollout(Task(name="dark", description="x", make=lambda: gym.make("CartPole-v1")), 0, "random", 3)


class Broken(Corridor):
    def step(self, action: int):
        raise ZeroDivisionError("no world left")


class Growing(Corridor):
    def render(self) -> np.ndarray:
        return np.zeros((8 + self.steps, 8, 3), np.uint8)


def no_world() -> gym.Env:
    raise FileNotFoundError("world.xml")


@pytest.mark.parametrize(
    ("make", "reason"), [(Broken, "no world left"), (Growing, "frames of one size"), (no_world, r"world\.xml")]
)
def test_what_an_environment_raises_is_the_tasks_fault(make, reason: str) -> None:
    with pytest.raises(TaskError, match=rf"'faulty'.*seed 4.*{reason}"):
        rollout(Task(name="faulty", description="x", make=make), 4, "random", 3)


def test_an_environment_is_closed_whatever_happens() -> None:
    closed = []

    class Watched(Broken):
        def close(self) -> None:
            closed.append(True)

    with pytest.raises(TaskError):
        rollout(Task(name="watched", description="x", make=Watched), 0, "random")
    with made(Task(name="watched", description="x", make=Watched), 0):
        assert closed == [True]
    assert closed == [True, True]


# Many episodes


SEEDS = seeds_of(0, Role.EXPERT, 11)


def same(one: Trajectory, other: Trajectory) -> bool:
    return np.array_equal(one.frames, other.frames) and np.array_equal(one.actions, other.actions)


def test_in_this_process_where_ray_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    told: list[tuple[float, float | None]] = []
    store = collect(
        DOOR, SEEDS, "expert", str(tmp_path), progress=lambda label, done, total=None: told.append((done, total))
    )
    assert [trajectory.seed for trajectory in store] == SEEDS
    assert told[-1] == (11, 11)
    assert [trajectory.seed for trajectory in read_in_parallel(store)] == SEEDS


def test_in_parallel_it_is_the_same_in_the_same_order(tmp_path: Path, ray_cluster: None) -> None:
    told: list[tuple[float, float | None]] = []
    store = collect(
        DOOR,
        SEEDS,
        "random",
        str(tmp_path),
        max_steps=30,
        with_events=True,
        progress=lambda label, done, total=None: told.append((done, total)),
    )
    assert len(store.manifest.parts) > 1
    found = read_in_parallel(store)
    assert [trajectory.seed for trajectory in found] == SEEDS
    for trajectory in found:
        again = rollout(DOOR, trajectory.seed, "random", 30, with_events=True)
        assert same(trajectory, again)
        assert trajectory.events.keys() == again.events.keys()
    assert told[-1] == (11, 11)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_task_made_of_closures_travels(tmp_path: Path, ray_cluster: None) -> None:
    length = 6
    task = Task(
        name="closure", description="x", make=lambda: Corridor(length), expert=lambda env: lambda observation: 1
    )
    store = collect(task, [5, 6, 7], "expert", str(tmp_path))
    assert [len(trajectory) for trajectory in store] == [6, 6, 6]


SCRIPT = """
import gymnasium as gym, numpy as np
from carl.task import Task

class Line(gym.Env):
    action_space, observation_space = gym.spaces.Discrete(2), gym.spaces.Box(0, 1, (1,), np.float32)
    render_mode = "rgb_array"
    def reset(self, *, seed=None, options=None):
        self.at = 0
        return np.zeros(1, np.float32), {}
    def step(self, action):
        self.at += 1
        return np.zeros(1, np.float32), float(self.at == 3), self.at == 3, False, {}
    def render(self):
        return np.full((4, 4, 3), self.at, np.uint8)

class Go:
    def __init__(self, env): pass
    def __call__(self, observation): return 1

TASK = Task(name="line", description="x", make=Line, expert=Go)
"""


def test_a_task_defined_in_a_script_travels(tmp_path: Path, ray_cluster: None) -> None:
    """Its classes live in ``__main__``, which is another module in the processes of Ray."""
    script = {"__name__": "__main__"}
    exec(SCRIPT, script)
    store = collect(script["TASK"], [1, 2], "expert", str(tmp_path))
    assert [trajectory.frames[:, 0, 0, 0].tolist() for trajectory in store] == [[0, 1, 2, 3]] * 2


def test_an_error_in_a_ray_task_arrives_as_it_was(tmp_path: Path, ray_cluster: None) -> None:
    faulty = Task(name="faulty", description="x", make=Broken)
    with pytest.raises(
        TaskError, match=r"^task 'faulty': its code raised ZeroDivisionError in .* seed .*no world left"
    ) as caught:
        collect(faulty, [1, 2, 3], "random", str(tmp_path))
    assert type(caught.value) is TaskError
    assert not TrajectoryStore(tmp_path).exists()


def test_what_was_collected_is_not_collected_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    collect(CORRIDOR, [1], "expert", str(tmp_path))
    with pytest.raises(StoreError, match="already holds"):
        collect(CORRIDOR, [2], "expert", str(tmp_path))
    assert [t.seed for t in collect(CORRIDOR, [2], "expert", str(tmp_path), replace=True)] == [2]


def test_no_seeds_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no seeds"):
        collect(CORRIDOR, [], "expert", str(tmp_path))


# Experts that fail sometimes

LUCKY = replace(COIN_FLIP, expert=PushRight)


def lucky(seeds: list[int]) -> list[bool]:
    return [attempt(LUCKY, CoinFlip(), seed, "expert").success for seed in seeds]


def collected(place: Path, count: int, max_failed: float = 0.5) -> TrajectoryStore:
    return collect(LUCKY, FLIPS[:count], "expert", str(place), spare=iter(FLIPS[count:]), max_failed=max_failed)


FLIPS = seeds_of(0, Role.EXPERT, 60)


def test_failed_episodes_are_replaced_by_those_of_further_seeds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    store = collected(tmp_path / "a", 10, 0.7)
    won = [seed for seed, success in zip(FLIPS, lucky(FLIPS), strict=True) if success][:10]
    assert [trajectory.seed for trajectory in store] == won
    assert all(trajectory.success for trajectory in store)
    failed = FLIPS.index(won[-1]) + 1 - 10
    assert failed > 1
    assert TrajectoryStore(tmp_path / "a").manifest.failed == failed
    assert f"its expert failed in {failed} of {10 + failed} episodes" in caplog.text


class Fatal(Corridor):
    """Ends its process in the middle of one episode."""

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        self.fatal = seed == 5
        return super().reset(seed=seed)

    def render(self) -> np.ndarray:
        if self.fatal and self.steps == 2:
            os._exit(1)
        return super().render()


def test_the_seed_is_named_whose_episode_ends_the_process(tmp_path: Path, ray_cluster: None) -> None:
    with pytest.raises(TaskError, match=r"'corridor': a process that recorded ended twice, .* episode of seed 5: "):
        collect(replace(CORRIDOR, make=Fatal), [3, 4, 5, 6], "random", str(tmp_path / "store"))
    assert not TrajectoryStore(tmp_path / "store").exists()


def test_the_same_episodes_are_kept_however_the_work_is_split(tmp_path: Path, ray_cluster: None) -> None:
    here, again = collected(tmp_path / "a", 10, 0.7), tmp_path / "b"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray.is_initialized", lambda: False)
        alone = collected(again, 10, 0.7)
    assert [one.seed for one in here] == [one.seed for one in alone]
    assert here.manifest.failed == alone.manifest.failed


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_an_expert_that_fails_too_often_is_an_error_with_figures(
    tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    failed = lucky(FLIPS[:10]).count(False)
    first = FLIPS[lucky(FLIPS[:10]).index(False)]
    with pytest.raises(TaskError, match=rf"failed in {failed} of 10 episodes.*{first}.*share {share:g} may fail"):
        collected(tmp_path, 10, share)
    assert not TrajectoryStore(tmp_path).exists()


@pytest.mark.parametrize(
    ("wanted", "share", "allowed"), [(60, 0.5, 60), (60, 0.0, 0), (2, 0.5, 2), (3, 0.25, 1), (9, 0.1, 1), (8, 0.1, 0)]
)
def test_the_share_is_of_all_that_are_played(wanted: int, share: float, allowed: int) -> None:
    assert allowed_failures(wanted, share) == allowed


def test_without_spare_seeds_no_episode_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(TaskError, match="expert failed in"):
        collect(LUCKY, FLIPS[:10], "expert", str(tmp_path), max_failed=0.9)


# How large it gets


class Large(Corridor):
    def render(self) -> np.ndarray:
        return np.full((400, 600, 3), self.steps, np.uint8)


def test_the_size_is_said_before_recording_and_large_frames_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    caplog.set_level("INFO", "carl")
    large = Task(name="large", description="x", make=Large, expert=PushRight)
    for place in ("a", "b"):
        collect(large, [1, 2], "random", str(tmp_path / place), 3)
    assert "2 random episodes of at most 3 steps, frames 400 x 600" in caplog.text
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1
    assert "400 x 600 pixels, 720 kB each" in warned[0]
    assert "camera=carl.cameras.Shrunk(128)" in warned[0]


@pytest.mark.parametrize(
    ("episodes", "limits", "shown"),
    [
        (60, (None, 100), ["expert episodes: up to 4.36 GB of frames, "]),
        (60, (20, 100), []),
        (60, (None, None), []),
    ],
)
def test_a_size_is_shown_where_it_is_large_and_follows_from_a_limit(
    episodes: int, limits: tuple[int | None, ...], shown: list[str]
) -> None:
    said: list[str] = []
    frame = np.zeros((400, 600, 3), np.uint8)
    announce("large", "expert", frame, episodes, limits, lambda label, *_: said.append(label))
    assert [label[: len(start)] for label, start in zip(said, shown, strict=True)] == shown


def test_a_camera_that_shrinks_makes_frames_of_ordinary_size(caplog: pytest.LogCaptureFixture) -> None:
    task = Task(name="shrunk", description="x", make=Large, expert=PushRight, camera=Shrunk(128))
    trajectory = rollout(task, 0, "expert")
    assert trajectory.frames.shape[1:] == (80, 120, 3)
    assert trajectory.frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert Shrunk(600)(Large()).shape == (400, 600, 3)


def test_what_is_too_large_is_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    store = collect(CORRIDOR, [1, 2], "expert", str(tmp_path))
    assert isinstance(read_in_parallel(store), list)
    monkeypatch.setattr("carl.episodes.collect.KEPT_BYTES", 2 * 5 * 8 * 8 * 3 - 1)
    assert read_in_parallel(store) is store


# Demonstrations


def recorded(place: Path, *trajectories: Trajectory) -> Task:
    TrajectoryStore(place).write(trajectories)
    return replace(CORRIDOR, expert=None, demonstrations=str(place))


def test_demonstrations_stand_in_for_an_expert(tmp_path: Path) -> None:
    shown = [replace(rollout(CORRIDOR, seed, "expert"), role="by hand") for seed in (8, 9, 10)]
    store = collect(recorded(tmp_path / "mine", *shown), [1, 2], "expert", str(tmp_path / "run"))
    assert [(t.seed, t.role, t.success) for t in store] == [(8, "expert", True), (9, "expert", True)]
    assert same(store.read([0])[0], shown[0])


def test_too_few_demonstrations_are_never_made_do_with(tmp_path: Path) -> None:
    task = recorded(tmp_path / "mine", rollout(CORRIDOR, 0, "expert"))
    with pytest.raises(TaskError, match="holds 1 demonstrations that succeed and 2 are asked for"):
        collect(task, [1, 2], "expert", str(tmp_path / "run"))


def test_failed_demonstrations_are_passed_over_and_counted(tmp_path: Path) -> None:
    good = [rollout(CORRIDOR, seed, "expert") for seed in range(6)]
    mixed = [replace(one, success=seed not in (0, 3)) for seed, one in enumerate(good)]
    task = recorded(tmp_path / "mine", *mixed)
    first = collect(task, [1, 2], "expert", str(tmp_path / "a"), max_failed=0.5)
    then = collect(task, [1, 2], "expert", str(tmp_path / "b"), skip=2, max_failed=0.5)
    assert [[t.seed for t in store] for store in (first, then)] == [[1, 2], [4, 5]]
    assert [store.manifest.failed for store in (first, then)] == [1, 1]
    with pytest.raises(TaskError, match=r"holds 4 demonstrations that succeed and 5 are asked for"):
        collect(task, [1, 2, 3, 4, 5], "expert", str(tmp_path / "c"), max_failed=0.5)


def test_too_many_failed_demonstrations_are_an_error_with_figures(tmp_path: Path) -> None:
    good = rollout(CORRIDOR, 0, "expert")
    task = recorded(tmp_path / "mine", good, replace(good, success=False))
    with pytest.raises(TaskError, match=r"1 of 2 demonstrations .* failed, .* number 1 .* share 0.3"):
        collect(task, [1], "expert", str(tmp_path / "run"), max_failed=0.3)
    assert not TrajectoryStore(tmp_path / "run").exists()


def test_a_demonstration_in_which_nothing_is_seen_to_change_says_so(tmp_path: Path) -> None:
    good = rollout(CORRIDOR, 9, "expert")
    task = recorded(tmp_path / "mine", replace(good, frames=np.zeros_like(good.frames)))
    with pytest.raises(TaskError, match=r"5 frames of the solved episode of seed 9 are all alike"):
        collect(task, [1], "expert", str(tmp_path / "run"))


def test_demonstrations_seen_by_another_camera_are_refused(tmp_path: Path) -> None:
    good = rollout(CORRIDOR, 0, "expert")
    task = recorded(tmp_path / "mine", replace(good, frames=good.frames[:, :4]))
    with pytest.raises(TaskError, match="the Task's own camera"):
        collect(task, [1], "expert", str(tmp_path / "run"))


def test_demonstrations_that_are_not_there_name_the_file(tmp_path: Path) -> None:
    task = replace(CORRIDOR, demonstrations=str(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match="nowhere"):
        collect(task, [1], "expert", str(tmp_path / "run"))
