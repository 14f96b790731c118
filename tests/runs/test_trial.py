"""What a trial finds before anything is paid, and what it lets pass."""

import os
import random
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from carl.config import TrainConfig, VerifyConfig
from carl.errors import StoreError, TaskError
from carl.methods.code import CodeConfig, check_frames
from carl.program import RewardProgram, SubTask
from carl.rewards.latch import PROGRESS
from carl.rewards.mix import Mix
from carl.runs.trial import EXPERTS, Trial
from carl.task import Task
from tests.fakes.corridor import CORRIDOR, CoinFlip, Corridor

ALL = (Mix(shows=PROGRESS), Mix(0.0, 1.0, PROGRESS), Mix(0.0, 1.0))


def trial(task: Task, algorithm: str = "ppo", mixes=ALL, **limits: Any) -> Trial:
    config = CodeConfig(task=task.name, verify=VerifyConfig(**limits))
    return Trial(
        task,
        3,
        TrainConfig(algorithm=algorithm, env_runners=1),
        mixes,
        films=True,
        judge=partial(check_frames, task, config),
    )


class Odd(Corridor):
    """The corridor with other spaces; whatever it is told, it goes right."""

    def __init__(self, observed: gym.Space[Any] | None = None, acts: gym.Space[Any] | None = None) -> None:
        super().__init__()
        self.observation_space = observed or self.observation_space
        self.action_space = acts or self.action_space
        self.odd = observed is not None

    def _observation(self):
        return self.observation_space.sample() if self.odd else super()._observation()

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is no action"
        return super().step(1)


class Closing(Corridor):
    """The corridor of a simulator that neither steps nor draws once it is closed."""

    closed = False

    def close(self) -> None:
        self.closed = True

    def step(self, action):
        assert not self.closed
        return super().step(action)

    def render(self):
        assert not self.closed
        return super().render()


def test_no_environment_is_closed_before_all_is_tried() -> None:
    trial(replace(CORRIDOR, make=Closing)).check_policies()


def odd(**spaces_: gym.Space[Any]) -> Task:
    return replace(CORRIDOR, make=partial(Odd, **spaces_))


PICTURE = gym.spaces.Box(0, 255, (20, 30, 3), np.uint8)
NUMBERS = gym.spaces.Box(-2, 3, (2,), np.float64)
UNBOUNDED = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
BOTH = gym.spaces.Dict(move=gym.spaces.Discrete(2, start=1), force=NUMBERS)
SEEN = gym.spaces.Tuple((PICTURE, gym.spaces.Discrete(3), UNBOUNDED, gym.spaces.MultiBinary(2)))
CHOICES = gym.spaces.Tuple((gym.spaces.MultiDiscrete([2, 3], start=[1, 1]), gym.spaces.MultiBinary(2)))


@pytest.mark.parametrize(
    ("algorithm", "spaces_"),
    [
        ("ppo", {"observed": PICTURE, "acts": BOTH}),
        ("ppo", {"observed": SEEN, "acts": CHOICES}),
        ("ppo", {"observed": gym.spaces.Discrete(4, start=2), "acts": UNBOUNDED}),
        ("appo", {"observed": SEEN, "acts": BOTH}),
        ("sac", {"observed": SEEN, "acts": NUMBERS}),
        ("sac", {"observed": PICTURE, "acts": gym.spaces.Discrete(2, start=7)}),
    ],
    ids=["picture", "tuple", "discrete", "appo", "sac", "sac picture"],
)
def test_spaces_that_training_takes_pass(algorithm, spaces_):
    trial(odd(**spaces_), algorithm).check_policies()


@pytest.mark.parametrize(
    ("algorithm", "spaces_", "message"),
    [
        ("sac", {"acts": BOTH}, r"sac acts by one choice, .* and not in Dict.*: set train\.algorithm=ppo"),
        ("sac", {"acts": UNBOUNDED}, "bounded on both sides"),
        ("ppo", {"observed": gym.spaces.Text(5)}, r"no policy can see or act in .*Text"),
    ],
)
def test_spaces_that_training_does_not_take_are_refused(algorithm, spaces_, message):
    with pytest.raises(TaskError, match=message):
        trial(odd(**spaces_), algorithm).check_policies()


class Alone(Corridor):
    """Fails where another one is further."""

    steps_of_any: dict[int, int] = {}  # noqa: RUF012  what they share is the point

    def step(self, action):
        self.steps_of_any[id(self)] = self.steps
        if np.ptp(list(self.steps_of_any.values())) > 1:
            raise RuntimeError("where is everybody?")
        return super().step(action)


class Grows(Corridor):
    """Its frames do."""

    def render(self):
        return np.zeros((8, 8 + self.steps, 3), np.uint8)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            Alone,
            r"raised RuntimeError in two episodes side by side.*: where is everybody\? \(runs/test_trial\.py:\d+, in",
        ),
        (Grows, "has to keep one size"),
    ],
)
def test_two_slots_are_stepped_side_by_side_and_their_frames_taken(kind, message):
    with pytest.raises(TaskError, match=message):
        trial(replace(CORRIDOR, make=kind)).check_policies()


def test_a_frame_is_judged_in_the_box(monkeypatch):
    two = RewardProgram(subtasks=(SubTask(name="two", code="def progress(frame, initial):\n    return 2.0\n"),))
    monkeypatch.setattr("carl.methods.code.NOTHING", two)
    with pytest.raises(
        TaskError, match=r"a program that does nothing cannot judge its frames, uint8\[8, 8, 3\]: .*2\.0"
    ):
        trial(CORRIDOR).check_policies()
    trial(CORRIDOR, mixes=(Mix(0.0, 1.0),)).check_policies()


def test_one_of_the_experts_episodes_has_to_succeed(tmp_path):
    walks = replace(CORRIDOR, expert=lambda env: lambda observation: 1)
    trial(walks).check_expert()
    trial(replace(walks, make=CoinFlip)).check_expert()
    with pytest.raises(TaskError, match=rf"its expert failed in {EXPERTS} episodes of {EXPERTS}, .* after 20 steps"):
        trial(replace(walks, expert=lambda env: lambda observation: 0)).check_expert()
    with pytest.raises(TaskError, match="has no expert"):
        trial(CORRIDOR).check_expert()
    with pytest.raises(TaskError, match=r"raised KeyError in the episode of seed \d+: 'solved' \(runs/test_trial"):
        trial(replace(walks, success=lambda reward, terminated, truncated, info: info["solved"])).check_expert()
    with pytest.raises(StoreError, match="none"):
        trial(replace(CORRIDOR, demonstrations=str(tmp_path / "none"))).check_expert()


class Dies(Corridor):
    """As an environment whose renderer finds no display."""

    def render(self):
        print("no display here", flush=True)
        os.write(2, b"cannot open display\n")
        os._exit(9)


def test_an_environment_that_ends_its_process_ends_another_one_first():
    with pytest.raises(TaskError, match=r"exit status 9\) in the episode of seed \d+, .*: 'cannot open display'"):
        trial(replace(CORRIDOR, make=Dies)).hold(expert=True)


class DiesInTheDark(Corridor):
    """It cannot be filmed, and ends its process in a step."""

    def render(self):
        raise NotImplementedError

    def step(self, action):
        os._exit(9)


def test_an_environment_that_cannot_be_filmed_is_stepped_all_the_same():
    with pytest.raises(TaskError, match="exit status 9"):
        trial(replace(CORRIDOR, make=DiesInTheDark)).check_living()


class Draws(Corridor):
    """From the generators that everybody shares."""

    def reset(self, **kwargs):
        random.random(), np.random.rand(), torch.rand(1)
        return super().reset(**kwargs)


def test_a_trial_leaves_no_trace_and_is_held_once(monkeypatch):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    trial(replace(CORRIDOR, make=Draws)).check_policies()
    assert states() == before

    held = []
    monkeypatch.setattr("carl.runs.trial.HELD", set())
    for check in ("living", "policies"):
        monkeypatch.setattr(Trial, f"check_{check}", lambda trial, check=check: held.append(check))
    for run_seed in (3, 3, 4):
        replace(trial(CORRIDOR), run_seed=run_seed).hold(expert=False)
    assert held == ["living", "policies"] * 2


class Stuck(Corridor):
    """Cannot be closed."""

    def close(self) -> None:
        raise OSError("no such display")


class Former(Corridor):
    """Resets as gym did before gymnasium."""

    def reset(self, **kwargs: Any):
        return super().reset(**kwargs)[0]


def no_environment() -> None:
    """As a function without its return does."""


class Misshapen(Corridor):
    def _observation(self):
        return np.zeros(9, np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Stuck, "raised OSError in the closing of its environment: no such display"),
        (no_environment, r"its make\(\) gave None instead of a gymnasium environment"),
        (Former, r"gave a ndarray instead of \(observation, info\)"),
        (Misshapen, r"an observation has the shape \[9\], and observation_space \[5\]"),
    ],
)
def test_what_an_environment_gets_wrong_by_itself_is_one_sentence(make, message):
    with pytest.raises(TaskError, match=message):
        trial(replace(CORRIDOR, make=make)).check_policies()


def test_the_first_error_is_shown_where_closing_fails_as_well():
    class Broken(Stuck):
        def step(self, action: int):
            raise RuntimeError("no world left")

    with pytest.raises(TaskError, match="no world left"):
        trial(replace(CORRIDOR, make=Broken)).check_policies()


class Unlit(Corridor):
    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


def test_an_expert_whose_success_no_frame_shows_is_refused_before_it_is_recorded():
    with pytest.raises(TaskError, match=r"5 frames of the solved episode of seed .* are all alike"):
        trial(replace(CORRIDOR, make=Unlit, expert=lambda _: lambda _: 1)).check_expert()


def test_an_expert_that_takes_observations_is_refused_with_what_it_should_take():
    with pytest.raises(TaskError, match="its expert gave 1 for an environment; an expert is called with the"):
        trial(replace(CORRIDOR, expert=lambda _: 1)).check_expert()
