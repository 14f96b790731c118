"""What the sections of reward_path.py share: a task, a program for it, runners and trainings of both, and clocks."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from carl.config import TrainConfig
from carl.nano import programs
from carl.program import RewardProgram, SubTask
from carl.rewards.latch import PROGRESS
from carl.rewards.mix import Mix
from carl.rewards.program import ProgramReward
from carl.task import Environment, Frame, Task
from carl.tasks import get_task
from carl.tasks.minigrid_picture import TopDown

TASK = "DoorKey-8x8"
MIX = Mix(shows=PROGRESS)
PROGRAM = RewardProgram(
    subtasks=(
        SubTask(name="pick up the key", code=programs.PICK_UP_KEY),
        SubTask(name="open the door", code=programs.OPEN_DOOR),
        SubTask(name="reach the goal", code=programs.REACH_GOAL),
    )
)


def in_turns(ways: Mapping[str, Callable[[], float]], turns: int) -> dict[str, float]:
    """Median of what each way measured, one turn after the other; a first turn is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns + 1):
        for name, way in ways.items():
            found[name].append(way())
    return {name: float(np.median(values[1:])) for name, values in found.items()}


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def random_play(steps: int, tile: int = 8) -> list[Frame]:
    """Frames of one environment that acts at random."""
    env = get_task(TASK).make()
    world: Any = env.unwrapped
    world.tile_size = tile
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(steps):
        frames.append(np.asarray(env.render()))
        if any(env.step(int(rng.integers(6)))[2:4]):
            env.reset()
    return frames


class OwnView(gym.ObservationWrapper[Any, Any, Any]):
    """MiniGrid's own partial view, one-hot: what the task shows, made the usual way."""

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._eyes = [np.eye(size, dtype=np.float32) for size in (11, 6, 3, 4)]
        self.observation_space = gym.spaces.Box(0.0, 1.0, (7 * 7 * 20 + 4,), np.float32)

    def observation(self, observation: Any) -> NDArray[np.float32]:
        image, eyes = observation["image"], self._eyes
        planes = [eye[image[..., plane]].ravel() for plane, eye in enumerate(eyes[:3])]
        return np.concatenate([*planes, eyes[3][observation["direction"]]])


def own_view() -> Environment:
    """The task's environment with MiniGrid's own view, and our camera."""
    import minigrid  # noqa: F401  registers the environments

    env = gym.make(
        f"MiniGrid-{TASK}-v0", render_mode="rgb_array", highlight=False, tile_size=8, disable_env_checker=True
    )
    return OwnView(TopDown(env))


def code_runner(task: Task, channel: Any, mix: Mix) -> Any:
    """Our env runner, in this process."""
    from carl.training.rllib.algorithms import configure
    from carl.training.rllib.runner import PaidRunner, RunnerSetup

    setup = RunnerSetup(task, mix, 0, channel)
    config = configure(setup, TrainConfig(env_runners=0, envs_per_runner=32))
    return PaidRunner(config=config, worker_index=1)


def stock_runner(make: Callable[[], Environment]) -> Any:
    """RLlib's own env runner on the environment's own reward."""
    from ray import tune
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    tune.register_env("stock", lambda _: make())
    model = DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False)
    config = (
        PPOConfig()
        .environment("stock")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=32)
        .rl_module(model_config=model)
    )
    return SingleAgentEnvRunner(config=config, worker_index=1)


def trained(source: ProgramReward, steps: int) -> tuple[float, int]:
    """Environment steps per second of a training with ``source``; and its abstains, final evaluation included."""
    from carl.training.train import train
    from carl.training.training import Training

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainConfig(env_steps=steps, evaluate_every=10**6, checkpoint_every=10**6)
        training = Training(get_task(TASK), source, MIX, 0, Path(folder), settings)
        progressed = train(training).progressed
        (point,) = map(json.loads, training.curve.read_text().splitlines())
    return progressed.env_steps / progressed.seconds, progressed.abstains + point["evaluation"]["abstains"]
