"""What is kept as a demonstration, whoever plays, and where it goes."""

import os
import pty
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from typer.testing import CliRunner

from carl.artefacts import STATE, write_json
from carl.cli import app
from carl.episodes.collect import collect
from carl.episodes.keyboard import Keyboard, Player, key_actions, legend, picture
from carl.episodes.record import Recorder, by, record
from carl.episodes.trajectory import TrajectoryStore
from carl.errors import ConfigError, StoreError, TaskError
from carl.methods.code import CodeConfig
from carl.runs.directory import RunDirectory
from carl.runs.player import policy_of
from carl.tasks import get_task
from carl.training.checkpoint import Progressed
from tests.fakes.corridor import COIN_FLIP, CORRIDOR, STEERED, Corridor

WALKER = replace(CORRIDOR, expert=lambda env: lambda observation: 1)


def walk(env: gym.Env, actions: list[int]) -> None:
    for action in actions:
        env.step(action)


# A loop of one's own


def test_episodes_that_succeed_are_kept_as_they_end(tmp_path: Path) -> None:
    with Recorder(WALKER, tmp_path / "shown") as env:
        env.reset(seed=3)
        walk(env, [1, 0, 1, 1, 1, 1])
        assert len(TrajectoryStore(tmp_path / "shown")) == 1, "before anything is closed"
        env.reset(seed=4)
        walk(env, [0] * 20)  # truncated
        env.reset(seed=5)
        walk(env, [1, 1])  # cut short
        env.reset()
        walk(env, [1, 1, 1, 1])
        assert (env.kept, env.failed) == (2, 2)
    first, second = TrajectoryStore(tmp_path / "shown")
    assert (first.seed, first.role, first.success, first.terminated) == (3, "demonstration", True, True)
    assert first.actions.tolist() == [1, 0, 1, 1, 1, 1]
    assert first.rewards.tolist() == [0, 0, 0, 0, 0, 1]
    assert first.frames[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 2, 3, 4]
    assert len(second) == 4
    again = Corridor()
    again.reset(seed=second.seed)
    assert second.seed >= 0


def test_what_was_recorded_stands_in_for_an_expert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with Recorder(WALKER, tmp_path / "shown") as env:
        record(env, by(WALKER.expert), 2)
    task = replace(WALKER, expert=None, demonstrations=str(tmp_path / "shown"))
    assert [one.role for one in collect(task, [1, 2], "expert", str(tmp_path / "run"))] == ["expert", "expert"]


def test_demonstrations_are_refused_added_or_replaced(tmp_path: Path) -> None:
    def recorded(*existing: str, seed: int) -> list[int]:
        with Recorder(WALKER, tmp_path, *existing) as env:
            env.reset(seed=seed)
            walk(env, [1, 1, 1, 1])
        return TrajectoryStore(tmp_path).endings("seed")

    assert recorded(seed=1) == [1]
    with pytest.raises(StoreError, match=r"already holds 1 demonstrations.*--append"):
        recorded(seed=2)
    assert recorded("append", seed=3) == [1, 3]
    assert recorded("replace", seed=4) == [4]


def test_nothing_is_replaced_before_there_is_something_better(tmp_path: Path) -> None:
    for existing in ("refuse", "replace"):
        with Recorder(WALKER, tmp_path, existing) as env:
            env.reset(seed=1)
            walk(env, [1, 1, 1, 1] if existing == "refuse" else [1, 1])
    assert TrajectoryStore(tmp_path).endings("seed") == [1]


def test_frames_of_another_size_are_refused_before_an_episode_is_played(tmp_path: Path) -> None:
    with Recorder(WALKER, tmp_path) as env:
        record(env, by(WALKER.expert), 1)
    wider = replace(WALKER, camera=lambda env: np.zeros((8, 16, 3), np.uint8))
    with Recorder(wider, tmp_path, "append") as env, pytest.raises(StoreError, match=r"\[8, 8, 3\].*\[8, 16, 3\]"):
        env.reset(seed=1)


def test_a_success_that_cannot_be_seen_is_no_demonstration(tmp_path: Path) -> None:
    blind = replace(WALKER, camera=lambda env: np.zeros((8, 8, 3), np.uint8))
    with Recorder(blind, tmp_path) as env, pytest.raises(TaskError, match="all alike"):
        record(env, by(WALKER.expert), 1)
    assert not TrajectoryStore(tmp_path).exists()


# A script


def test_a_script_plays_until_enough_are_kept_on_seeds_that_are_new(tmp_path: Path) -> None:
    lucky, said = replace(COIN_FLIP, expert=WALKER.expert), []
    for existing in ("refuse", "append"):
        with Recorder(lucky, tmp_path, existing, "expert") as env:
            record(env, by(lucky.expert), 4, max_failed=0.8, progress=lambda *what: said.append(what))
            assert env.kept == 4
    assert {label for label, *_ in said} == {"demonstrations of coin-flip"}, "so little needs no estimate"
    assert said[-1] == ("demonstrations of coin-flip", 4, 4)
    store = TrajectoryStore(tmp_path)
    assert len(set(store.endings("seed"))) == 8
    assert store.endings("source") == ["expert"] * 8


def test_too_many_failures_end_it_with_figures(tmp_path: Path) -> None:
    lost = replace(WALKER, expert=lambda env: lambda observation: 0)
    with (
        Recorder(lost, tmp_path) as env,
        pytest.raises(TaskError, match=r"3 of 3 episodes failed.*share 0.5 may"),
    ):
        record(env, by(lost.expert), 2)


def test_an_episode_without_end_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carl.task.LONGEST", 30)
    endless = replace(WALKER, make=lambda: Corridor(1000, 1000))
    with Recorder(endless, tmp_path) as env, pytest.raises(TaskError, match="2 of 2 episodes failed"):
        record(env, by(endless.expert), 1)


# The command


def test_the_command_keeps_the_expert_s_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = "tests.episodes.test_record:WALKER"
    told = CliRunner().invoke(app, ["record", task, "--episodes", "3"])
    assert told.exit_code == 0, told.output
    assert "Episodes kept: 3; failed and left out: 0" in told.output
    assert len(TrajectoryStore(tmp_path / "demonstrations/tests.episodes.test_record.WALKER")) == 3
    for arguments, kind in ((["--append", "--replace"], ConfigError), ([], StoreError)):
        assert isinstance(CliRunner().invoke(app, ["record", task, *arguments]).exception, kind)
    CliRunner().invoke(app, ["record", task, "--episodes", "2", "--append"], catch_exceptions=False)
    assert len(TrajectoryStore(tmp_path / "demonstrations/tests.episodes.test_record.WALKER")) == 5
    without = CliRunner().invoke(app, ["record", "tests.fakes.corridor:CORRIDOR"])
    assert "no expert to record" in str(without.exception)


# A policy


class Rightwards:
    """A policy that walks right where it is shown progress, as a trained one that expects it would."""

    def act(self, observations: np.ndarray, *, greedy: bool) -> np.ndarray:
        assert not greedy
        return np.full(len(observations), int(observations.shape[1] == 5))


def test_the_policy_of_a_run_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CodeConfig(task="tests.episodes.test_record:WALKER", run_dir=tmp_path / "run", reward={"method": "sparse"})
    RunDirectory(config)
    with Recorder(WALKER, tmp_path / "shown", role="policy") as env:
        with pytest.raises(ConfigError, match=r"yet; run `carl train /.*/run` first"), policy_of(tmp_path / "run", env):
            pass
        checkpoint = tmp_path / "run/training/sparse/checkpoints/000000000010"
        write_json(checkpoint / STATE, asdict(Progressed()))
        monkeypatch.setattr("carl.runs.player.Checkpoints.latest", lambda self: checkpoint)
        monkeypatch.setattr("carl.runs.player.Policy.of", lambda path: Rightwards() if path == checkpoint else None)
        with policy_of(tmp_path / "run", env) as play:
            record(env, play, 3)
        assert (env.kept, env.failed) == (3, 0)
    assert [len(one) for one in TrajectoryStore(tmp_path / "shown")] == [4, 4, 4]


def test_a_policy_of_another_task_is_refused(tmp_path: Path) -> None:
    RunDirectory(CodeConfig(task="Empty-8x8", run_dir=tmp_path / "run"))
    with (
        Recorder(WALKER, tmp_path / "shown") as env,
        pytest.raises(ConfigError, match="a run of Empty-8x8, not of corridor"),
        policy_of(tmp_path / "run", env),
    ):
        pass


# A person


class Typed(Keyboard):
    """Keys that somebody is going to press, and what is shown to them."""

    def __init__(self, keys: str) -> None:
        self._keys, self.shown = iter(keys), ""

    def read(self) -> str:
        return next(self._keys)

    def write(self, text: str) -> None:
        self.shown += text


def test_a_person_plays_with_keys(tmp_path: Path) -> None:
    """One episode with a key that means nothing, one begun anew, one given up."""
    keys = Typed("1z111" + "0x" + "1111" + "1q")
    with Recorder(WALKER, tmp_path, role="person") as env:
        record(env, by(Player(WALKER, keys)), 9, max_failed=None)
        assert (env.kept, env.failed) == (2, 2)
    assert [one.actions.tolist() for one in TrajectoryStore(tmp_path)] == [[1, 1, 1, 1]] * 2
    assert "\u2580" in keys.shown
    assert "step 3" in keys.shown


def test_keys_are_called_as_the_environment_calls_its_actions() -> None:
    env = get_task("DoorKey-5x5").make()
    actions = key_actions("DoorKey-5x5", env)
    assert {key: actions[key] for key in ("0", "6", "\x1b[D", "\x1b[C", "\x1b[A")} == {
        "0": 0,
        "6": 6,
        "\x1b[D": 0,
        "\x1b[C": 1,
        "\x1b[A": 2,
    }
    assert legend(env, actions).startswith("0 left  1 right  2 forward  3 pickup")


def test_actions_may_begin_at_another_number_than_nought() -> None:
    env = Corridor()
    env.action_space = gym.spaces.Discrete(3, start=-1)
    assert key_actions("odd", env) == {"0": -1, "1": 0, "2": 1}


def test_continuous_actions_are_no_keys() -> None:
    with pytest.raises(TaskError, match=r"'steered': its actions are Box.*a script or a policy"):
        key_actions("steered", STEERED.make())


@pytest.mark.parametrize("size", [(8, 8), (400, 600), (64, 64), (1000, 100), (1, 1)])
def test_a_picture_fits_the_terminal(size: tuple[int, int]) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    frame[:, : size[1] // 2] = (250, 0, 0)
    lines = picture(frame, 80, 24).splitlines()
    assert 1 <= len(lines) <= 21
    assert {line.count("\u2580") for line in lines} <= set(range(1, 81))
    if size[1] > 1:
        assert lines[0].startswith("\x1b[38;2;250;0;0;48;2;250;0;0m\u2580")


@pytest.fixture
def pseudo() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: where keys are pressed, and where they are read."""
    ends = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


def test_keys_are_read_without_enter_from_a_terminal(pseudo: tuple[int, int]) -> None:
    pressed, read = pseudo
    with Keyboard(read) as keyboard:
        for key in ("1", "q", "\x1b[A"):
            os.write(pressed, key.encode())
            assert keyboard.read() == key


def test_without_a_terminal_there_are_no_keys() -> None:
    end, other = os.pipe()
    try:
        with pytest.raises(ConfigError, match="terminal"):
            Keyboard(end)
    finally:
        os.close(end)
        os.close(other)
