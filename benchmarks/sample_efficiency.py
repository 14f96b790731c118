"""Environment steps, and seconds, until success_rate 0.95: the code reward against the sparse one.

For each task one program is synthesized and verified (seed 0). Then every seed trains once on the program's reward and
once on the environment's own, with the same observation (progress included), network and settings. A training has
arrived when 100 selection episodes, on seeds of their own, reach 0.95; they are played whenever, of the 32 or more
training episodes that ended since the last look, 0.90 succeeded (looks are at least an iteration, 2,048 steps, apart).
One that has not arrived by the budget counts as the budget: if it is a sparse one, the ratio is a lower bound. Ratios
are of mean steps, or seconds of sampling and learning, over the seeds, with a 95 % bootstrap interval. Seeds are
resampled in pairs: both arms of a seed begin with the same network and play the same rooms. Making the program is not
in the ratios: its seconds are given beside. Where a task mixes in the environment's own reward, so does the code arm.
Stop it anywhere; the same command continues it; after a change of the settings here or in carl/training, begin a new
directory. The last line is JSON.

    python benchmarks/sample_efficiency.py --task DoorKey-8x8 --task UnlockPickup
"""

import json
import os
import platform
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from carl.cli import bars
from carl.cluster.logs import quiet
from carl.cluster.session import ray_running
from carl.config import EvaluationConfig, RewardConfig, TrainConfig
from carl.console.progress import Progress
from carl.methods.arms import arm_of, mix_of
from carl.methods.code import CodeConfig
from carl.program import RewardProgram
from carl.rewards.program import ProgramReward
from carl.runs.pipeline import Pipeline
from carl.runs.resolve import resolved
from carl.runs.result import versions
from carl.tasks import get_task
from carl.tasks.minigrid import ROOMS

GOAL = 0.95
ARMS = ("code", "sparse+progress")
BUDGET = {"DoorKey-16x16": 600_000, "UnlockPickup": 900_000}
DEFAULT_BUDGET = 300_000
SEEDS = {"Empty-8x8": 15}
"""Trainings there take six to ten iterations, and arrive at the end of one: five would measure luck."""
DEFAULT_SEEDS = 5


def program_of(task: str, directory: Path, progress: Progress) -> tuple[RewardProgram, float]:
    """The verified program of a run of the first stages, seed 0, and the seconds they took."""
    pipeline = Pipeline(CodeConfig(task=task, run_dir=directory / task / "program"), progress)
    pipeline.run(("collect", "synthesize", "verify"))
    return RewardProgram.load(pipeline.dir / "program.json"), round(sum(pipeline.dir.seconds.values()), 1)


def arrive(
    task: str, program: RewardProgram, arm: str, seed: int, directory: Path, progress: Progress
) -> dict[str, Any]:
    """Train until the goal or the budget; returns steps, seconds and whether the goal was reached."""
    from carl.training.train import train
    from carl.training.training import Training

    spec = get_task(task)
    steps = {"env_steps": BUDGET.get(task, DEFAULT_BUDGET), "evaluate_every": 50, "stop_at_success": GOAL}
    config = resolved(CodeConfig(task=task, reward=RewardConfig(method=arm), train=TrainConfig(**steps)), spec)
    training = Training(
        task=spec,
        source=ProgramReward(program),
        mix=mix_of(config, arm_of(arm)),
        run_seed=seed,
        directory=directory / task / f"{program.id}-{arm}-{seed}",
        train=config.train,
        evaluation=EvaluationConfig(curve_episodes=16),
    )

    def note(_: str, done: float, total: float | None = None) -> None:
        progress(f"{task} {arm} {seed}", done, total)

    progressed = train(training, note).progressed
    steps = min(progressed.env_steps, training.env_steps)
    return {"steps": steps, "seconds": round(progressed.seconds, 1), "reached": progressed.solved}


def bootstrap(code: NDArray[Any], sparse: NDArray[Any], draws: int = 10_000) -> list[float]:
    """95 % percentile interval of mean(sparse) / mean(code), seeds resampled in pairs."""
    chosen = np.random.default_rng(0).integers(len(code), size=(draws, len(code)))
    ratios = sparse[chosen].mean(axis=1) / code[chosen].mean(axis=1)
    return [round(float(bound), 2) for bound in np.percentile(ratios, [2.5, 97.5])]


def compared(arrivals: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Ratios of sparse to code in steps and seconds."""
    found: dict[str, Any] = {
        arm: {key: [one[key] for one in runs] for key in runs[0]} for arm, runs in arrivals.items()
    }
    for unit in ("steps", "seconds"):
        code, sparse = (np.array([run[unit] for run in arrivals[arm]], dtype=float) for arm in ARMS)
        found[f"ratio_{unit}"] = round(float(sparse.mean() / code.mean()), 2)
        found[f"interval_{unit}"] = bootstrap(code, sparse)
    return found


def main(
    task: Annotated[list[str] | None, typer.Option(help="Tasks; all built-in rooms by default.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings for each arm; 5 by default, 15 on Empty-8x8.")] = None,
    directory: Annotated[Path, typer.Option(help="Where trainings are kept.")] = Path("runs/sample_efficiency"),
) -> None:
    """Measure, print what was found, end with one JSON line."""
    found: dict[str, Any] = {}
    with ray_running(), bars() as progress:
        for name in task or [built_in.name for built_in in ROOMS]:
            program, seconds = program_of(name, directory, progress)
            arrivals: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
            count = seeds or SEEDS.get(name, DEFAULT_SEEDS)
            for seed, arm in product(range(count), ARMS):  # in turns, so that a busy hour slows both
                arrivals[arm].append(arrive(name, program, arm, seed, directory, progress))
            found[name] = {
                "program_id": program.id,
                "program_seconds": seconds,
                "seeds": count,
                "env_reward_weight": resolved(CodeConfig(task=name), get_task(name)).reward.env_reward_weight,
                "budget": BUDGET.get(name, DEFAULT_BUDGET),
            } | compared(arrivals)
    setting = {
        "goal": GOAL,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "versions": versions(),
    }
    print(json.dumps({"benchmark": "sample_efficiency", "setting": setting, "tasks": found}))


if __name__ == "__main__":
    quiet()
    typer.run(main)
