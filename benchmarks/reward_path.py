"""What a reward costs on its way: camera, box, cache, env runner, training, faults. DoorKey-8x8, unless said.

Every ratio is of two things measured in one run of this script, in turns, as the median over the turns; only with
faults there is one training, between two without. The program is the one that the embedded VLM writes for the task.
Environments act at random, or by an untrained policy. The last line is JSON.

    python benchmarks/reward_path.py --only camera --only box
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from common import run
from light import Light
from numpy.typing import NDArray

from carl.broadcast.channel import reward_channel
from carl.cluster.session import ray_running
from carl.config import EMBEDDED_MODEL, TrainConfig
from carl.nano import programs
from carl.program import RewardProgram, SubTask
from carl.rewards.frames import Frames
from carl.rewards.latch import PROGRESS
from carl.rewards.mix import Mix
from carl.rewards.program import ProgramReward, ProgramSession
from carl.rewards.source import RewardSource
from carl.sandbox import child
from carl.sandbox.box import Box, Limits
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
CONTOURS = """
def progress(frame, initial):
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    mask = cv2.inRange(hsv, np.array([20, 80, 80]), np.array([35, 255, 255]))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    areas = [cv2.moments(contour)["m00"] for contour in contours]
    return min(1.0, sum(areas) / mask.size)
"""
"""Hue, contours and moments: what larger models like to write."""


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


def box() -> dict[str, Any]:
    """64 frames of 96 x 96 pixels, judged in the box and in this process.

    As in rollouts, the initial frame lies in the box's memory, and the others are copied there.
    """
    frames, rows, first = np.stack(random_play(64, tile=12)), np.arange(64), np.zeros(64, dtype=np.intp)
    found: dict[str, Any] = {}
    for name, source in (("program", programs.PICK_UP_KEY), ("contours", CONTOURS)):
        code = child.SubTaskCode(1, source, child.namespace())
        with Box(RewardProgram(subtasks=(SubTask(name=name, code=source),))) as boxed:
            initials = boxed.room(1, 96, 96)
            initials[0] = frames[0]
            pid = boxed.pid
            times = in_turns(
                {
                    "in_process": lambda code=code: seconds(lambda: [code.judge(frame, frames[0]) for frame in frames]),
                    "boxed": lambda boxed=boxed, initials=initials: seconds(
                        lambda: boxed.judge(frames, initials, first, rows, first)
                    ),
                },
                turns=200,
            )
            found[name] = {
                "us_per_frame_in_process": round(times["in_process"] / 64 * 1e6, 1),
                "boxed_over_in_process": round(times["boxed"] / times["in_process"], 3),
                "own_memory_mb": own_memory_mb(pid),
            }
    return found


def own_memory_mb(pid: int) -> float | None:
    """Memory that only this process has; None where its owner may not look, which is everybody but root."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        return None
    return round(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024, 1)


def opening() -> dict[str, float]:
    """Milliseconds to put a program into a box: with a zygote that runs, and with one to start."""
    from carl.sandbox import supervisor

    supervisor.dismiss()
    cold = seconds(lambda: Box(PROGRAM).close())
    warm = float(np.median([seconds(lambda: Box(PROGRAM).close()) for _ in range(50)]))
    return {"cold_ms": round(cold * 1e3, 1), "warm_ms": round(warm * 1e3, 2)}


def asking() -> dict[str, Any]:
    """Judging a frame in the box against asking the embedded VLM about it, and against reading it from a PNG file."""
    from PIL import Image

    from carl.serving.engine import VlmEngine
    from carl.serving.prompt import Prompt, Sampling

    engine = VlmEngine.load(EMBEDDED_MODEL)
    frames = np.stack(random_play(64))
    initials, tasks = np.broadcast_to(frames[0], frames.shape), np.zeros(64, dtype=np.intp)
    code = child.SubTaskCode(1, programs.PICK_UP_KEY, child.namespace())

    def ask() -> None:
        images = [{"type": "image", "image": Image.fromarray(frame)} for frame in (frames[0], frames[-1])]
        words = {"type": "text", "text": "Is this done: pick up the key? Answer yes or no."}
        message = {"role": "user", "content": [*images, words]}
        engine.generate([Prompt((message,), Sampling(max_tokens=2))])

    with tempfile.TemporaryDirectory() as folder, Box(PROGRAM) as boxed:
        paths = [str(Path(folder) / f"{row}.png") for row in range(64)]
        for path, frame in zip(paths, frames, strict=True):
            cv2.imwrite(path, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

        def read_and_judge() -> None:
            for path in paths:
                code.judge(cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB), frames[0])

        times = in_turns(
            {
                "boxed": lambda: seconds(lambda: boxed.judge(frames, initials, tasks)) / 64,
                "asked": lambda: seconds(ask),
                "from_png": lambda: seconds(read_and_judge) / 64,
            },
            turns=20,
        )
    return {
        "us_per_frame_boxed": round(times["boxed"] * 1e6, 1),
        "asking_over_boxed": round(times["asked"] / times["boxed"]),
        "from_png_over_boxed": round(times["from_png"] / times["boxed"], 2),
    }


def camera() -> dict[str, Any]:
    """Frames of 16 environments that act at random, after each step, against MiniGrid's own of the same size."""
    return {f"{8 * tile}px": pictures(tile) for tile in (8, 12)}


def pictures(tile: int) -> dict[str, float]:
    """Microseconds a frame, and how many times as long MiniGrid takes."""
    task, slots = get_task(TASK), np.arange(16)
    envs = [task.make() for _ in slots]
    for slot, env in enumerate(envs):
        world: Any = env.unwrapped
        world.tile_size = tile
        env.reset(seed=slot)
    frames, rng = Frames(task, envs), np.random.default_rng(0)
    ours, theirs = [], []
    for _ in range(400):
        for env in envs:
            if any(env.step(int(rng.integers(6)))[2:4]):
                env.reset()
        ours.append(seconds(lambda: frames.take(slots)))
        theirs.append(
            seconds(lambda: [env.unwrapped.get_frame(highlight=False, tile_size=tile) for env in envs])  # type: ignore[attr-defined]
        )
    return {
        "us": round(float(np.median(ours)) / len(envs) * 1e6, 2),
        "minigrid_over_ours": round(float(np.median(theirs) / np.median(ours)), 1),
    }


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


def env_runner() -> dict[str, Any]:
    """Environment steps per second of one env runner with 32 environments, in this process.

    Once with the task's environment, and once with MiniGrid's own view, which takes most of a step's time there.
    """
    with ray_running(), reward_channel() as with_cache, reward_channel() as without:
        with_cache.publish(ProgramReward(PROGRAM))
        without.publish(ProgramReward(PROGRAM, cache=False))
        task = throughput(get_task(TASK), with_cache, without)
        own = throughput(replace(get_task(TASK), make=own_view), with_cache, without)
        usual = own["us_per_step"]["stock"] / task["us_per_step"]["code"]
        return {"task": task, "own_view": own, "task_code_over_own_view_stock": round(usual, 2)}


def throughput(task: Task, with_cache: Any, without: Any) -> dict[str, Any]:
    """Of the same runner with the code reward and with the environment's own, and of RLlib's."""
    runners = {
        "code": code_runner(task, with_cache, MIX),
        "code_without_cache": code_runner(task, without, MIX),
        "sparse": code_runner(task, with_cache, Mix(source=0.0, env=1.0)),
        "stock": stock_runner(task.make),
    }
    times = in_turns(
        {
            name: lambda runner=runner: seconds(lambda: runner.sample(num_timesteps=4096))
            for name, runner in runners.items()
        },
        turns=12,
    )
    counts = runners["code"]._paid.counts
    for runner in runners.values():
        runner.stop()
    return {
        "us_per_step": {name: round(value / 4096 * 1e6, 1) for name, value in times.items()},
        "cache_hit_rate": round(counts["cache_hits"] / (counts["cache_hits"] + counts["cache_misses"]), 3),
        "code_over_sparse": round(times["sparse"] / times["code"], 3),
        "code_without_cache_over_sparse": round(times["sparse"] / times["code_without_cache"], 3),
        "code_over_stock": round(times["stock"] / times["code"], 2),
    }


def hops() -> dict[str, float]:
    """Where a step's time goes in an env runner with the code reward and 32 environments, microseconds."""
    from gymnasium.vector import SyncVectorEnv

    from carl.rewards.cache import JudgementCache
    from carl.rewards.vector import PaidVectorEnv
    from carl.training.rllib.fragment import Fragment
    from carl.training.rllib.runner import PaidRunner

    stops: tuple[tuple[str, type, str, str | None], ...] = (
        ("all", PaidRunner, "_sample", None),
        ("policy", PaidRunner, "_decide", "all"),
        ("episodes", Fragment, "close", "all"),
        ("environments", SyncVectorEnv, "step", "all"),
        ("latch", PaidVectorEnv, "_judge", "all"),
        ("camera", Frames, "take", "latch"),
        ("hash", JudgementCache, "see", "latch"),
        ("box", Box, "judge", "latch"),
    )
    spent = dict.fromkeys([name for name, *_ in stops], 0.0)

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - started

        return run

    with ray_running(), reward_channel() as channel:
        channel.publish(ProgramReward(PROGRAM))
        runner = code_runner(get_task(TASK), channel, MIX)
        runner.sample(num_timesteps=16_384)
        for name, owner, method, _ in stops:
            setattr(owner, method, timed(name, getattr(owner, method)))
        steps = sum(len(episode) for _ in range(16) for episode in runner.sample(num_timesteps=4_096))
        runner.stop()
    for name, _, _, within in stops:  # from outside to inside, so that what is taken off is still whole
        if within:
            spent[within] -= spent[name]
    return {name if name != "all" else "rest": round(value / steps * 1e6, 1) for name, value in spent.items()}


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


def training() -> dict[str, Any]:
    """Environment steps per second of whole PPO trainings: ours on the code reward, Stable-Baselines3's on the sparse
    one without frames. Same network, batch (2,048), epochs (8), environments (64) and cores; starting is not counted.
    """
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    def theirs(make: Callable[[], Environment]) -> float:
        torch.set_num_threads(os.cpu_count() or 1)
        agent = PPO(
            "MlpPolicy",
            DummyVecEnv([make] * 64),
            n_steps=32,
            batch_size=512,
            n_epochs=8,
            learning_rate=1e-3,
            policy_kwargs={"net_arch": [64, 64]},
            device="cpu",
        )
        return 40_960 / seconds(lambda: agent.learn(40_960))

    with ray_running():
        rates = in_turns(
            {
                "ours": lambda: trained(ProgramReward(PROGRAM), 40_960)[0],
                "sb3": lambda: theirs(get_task(TASK).make),
                "sb3_own_view": lambda: theirs(own_view),
            },
            turns=3,
        )
    return {
        "steps_per_s": {name: round(rate) for name, rate in rates.items()},
        "over_sb3": round(rates["ours"] / rates["sb3"], 2),
        "over_sb3_own_view": round(rates["ours"] / rates["sb3_own_view"], 2),
    }


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


def swap() -> dict[str, Any]:
    """Milliseconds from publishing a program to its last acknowledgement: 16 runners that rest, the same while they
    sample, and 64 light actors that only listen."""
    import ray

    found = {}
    with ray_running():
        for name, count, build in (("runners", 16, started_runner), ("light_actors", 64, started_light)):
            with reward_channel() as channel:
                channel.publish(variant(0))
                actors: list[Any] = []
                for first in range(0, count, 4):  # a few at a time: starting takes the processor
                    new = [build(channel, index) for index in range(first, first + 4)]
                    ray.get([actor.ping.remote() for actor in new])
                    actors += new
                found[name] = published(channel, count)
                if name == "runners":
                    samples = [actor.sample.remote(num_timesteps=100_000) for actor in actors]
                    found["runners_sampling"] = published(channel, count)
                    if ray.wait(samples, timeout=0)[0]:
                        raise RuntimeError("a runner had finished before the last publish")
                for actor in actors:
                    ray.kill(actor)
    return found


def variant(number: int) -> ProgramReward:
    """A program of its own, of the usual size."""
    first, *rest = PROGRAM.subtasks
    renamed = first.model_copy(update={"name": f"variant {number}"})
    return ProgramReward(RewardProgram(subtasks=(renamed, *rest)))


def started_runner(channel: Any, index: int) -> Any:
    import ray

    from carl.training.rllib.algorithms import configure
    from carl.training.rllib.runner import PaidRunner, RunnerSetup

    config = configure(RunnerSetup(get_task(TASK), MIX, 0, channel), TrainConfig(env_runners=0, envs_per_runner=8))
    return ray.remote(num_cpus=0)(PaidRunner).remote(config=config, worker_index=index + 1)


def started_light(channel: Any, index: int) -> Any:
    import ray

    return ray.remote(num_cpus=0)(Light).remote(channel, f"light-{index}")


def published(
    channel: Any, count: int, times: int = 20, source: Callable[[int], RewardSource] = variant
) -> dict[str, float]:
    """Median and worst of some publishes of ``source``, each acknowledged by all."""
    latencies = []
    for number in range(1, times + 1):
        answers = channel.wait_acknowledged(channel.publish(source(number)), timeout_s=30.0)
        if answers.missing or answers.refused or len(answers.seconds) < count:
            raise RuntimeError(f"not everybody acknowledged: {answers}")
        latencies.append(1e3 * answers.latency_s)
        time.sleep(0.5)
    return {"median_ms": round(float(np.median(latencies)), 1), "worst_ms": round(max(latencies), 1)}


FAULTS = 1_000
FAULT_EVERY = 20
"""One of so many answers that a box is asked for."""

ESCAPE = "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0].__init__.__globals__"
HANG, CRASH, BOMB = (
    f"def progress(frame, initial):\n    {line}\n    return 0.0\n"
    for line in ("while True: pass", f"{ESCAPE}['abort']()", "np.ones(1 << 40)")
)


@dataclass(frozen=True)
class Sabotaged(ProgramReward):
    """The program with faults put between: a hang, a crash and a bomb in turns, half of FAULTS in each process.

    They are counted in a file of ``log``, named for the process.
    """

    log: Path = Path()

    def open(self, slots: int) -> ProgramSession:
        session = super().open(slots)
        session._box.close()
        bad = tuple(SubTask(name=f"bad {i}", code=source) for i, source in enumerate((HANG, CRASH, BOMB)))
        whole = RewardProgram(subtasks=(*self.program.subtasks, *bad))
        session._box = SabotagedBox(whole, self.limits, policy=lambda _: None)
        session._box.log = self.log / str(os.getpid())
        return session


class SabotagedBox(Box):
    """Answers some questions by a faulty sub-task's code."""

    log = Path()
    asked = injected = 0

    def judge(self, frames: Frame, initials: Frame, subtasks: NDArray[np.intp], *which: Any) -> Any:
        subtasks = subtasks.copy()
        for place in range(len(subtasks)):
            self.asked += 1
            if self.injected < FAULTS // 2 and self.asked % FAULT_EVERY == 0:
                subtasks[place] = len(self._sources) - 3 + self.injected % 3
                self.injected += 1
                self.log.write_text(str(self.injected))
        return super().judge(frames, initials, subtasks, *which)


def faults() -> dict[str, Any]:
    """A training with 1,000 faults in its boxes, between two without. A hang takes its deadline, 50 ms."""
    limits = Limits(deadline_s=0.05)
    with ray_running(), tempfile.TemporaryDirectory() as log:
        before, none = trained(ProgramReward(PROGRAM, limits), 250_000)
        faulty, abstains = trained(Sabotaged(PROGRAM, limits, log=Path(log)), 250_000)
        after, also_none = trained(ProgramReward(PROGRAM, limits), 250_000)
        injected = sum(int(path.read_text()) for path in Path(log).iterdir())
    return {
        "injected": injected,
        "abstains": abstains,
        "abstains_clean": none + also_none,
        "faulty_over_clean": round(faulty / ((before + after) / 2), 3),
    }


SECTIONS = {
    "camera": camera,
    "box": box,
    "opening": opening,
    "asking": asking,
    "env_runner": env_runner,
    "hops": hops,
    "training": training,
    "swap": swap,
    "faults": faults,
}


if __name__ == "__main__":
    run("reward_path", SECTIONS, task=TASK)
