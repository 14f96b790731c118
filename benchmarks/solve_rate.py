"""Success of `carl run` with nothing but a task's name: each built-in room, several seeds, no hand in between.

Every run goes through all stages with the defaults (embedded VLM, the task's own number of steps), but without the
sparse baselines and with fewer points on the learning curve, and is examined on 200 episodes of its own, sampled.
DoorKey-16x16 runs once, with the sparse baselines beside it, and its learning curves are given. Stop it anywhere; the
same command continues it. The last line is JSON.

    python benchmarks/solve_rate.py --task Empty-8x8 --task Unlock
"""

import json
import os
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from carl.cli import bars
from carl.cluster.logs import quiet
from carl.cluster.session import ray_running
from carl.config import TrainConfig
from carl.console.progress import Progress
from carl.errors import ProgramError
from carl.methods.code import CodeConfig
from carl.runs.pipeline import Pipeline
from carl.runs.result import versions
from carl.statistics import wilson_interval
from carl.tasks.minigrid import ROOMS

CURVES = "DoorKey-16x16"


def solved(task: str, seed: int, directory: Path, progress: Progress, *, baselines: bool) -> dict[str, Any]:
    """One run's final evaluation, and what it took; success 0 if no program survived verification."""
    config = CodeConfig(
        task=task,
        seed=seed,
        run_dir=directory / f"{task}-{seed}",
        train=TrainConfig(baselines=baselines, evaluate_every=20),
    )

    def note(label: str, done: float, total: float | None = None) -> None:
        progress(f"{task} {seed} {label}", done, total)

    try:
        result = Pipeline(config, note).run()
    except ProgramError as error:
        return {"success_rate": 0.0, "episodes": config.evaluation.episodes, "why": str(error)}
    assert result is not None
    evaluation, vlm = result["evaluation"], result["vlm"]
    return {
        "success_rate": evaluation["success_rate"],
        "greedy": evaluation["arms"]["code"]["greedy"]["success_rate"],
        "episodes": evaluation["episodes"],
        "mean_length": evaluation["mean_length"],
        "env_steps": result["env_steps"],
        "requests": vlm["calls"],
        "samples": vlm["samples"],
        "candidates": result["candidates"],
        "seconds": round(sum(result["seconds"].values()), 1),
        "sparse": {name: arm["sampled"]["success_rate"] for name, arm in evaluation["arms"].items() if name != "code"},
    }


def pooled(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The runs of one task in columns, and their success together."""
    episodes = sum(run["episodes"] for run in runs)
    successes = sum(round(run["success_rate"] * run["episodes"]) for run in runs)
    return {
        "success_rate": round(successes / episodes, 4),
        "interval": [round(bound, 4) for bound in wilson_interval(successes, episodes)],
        "lowest": min(run["success_rate"] for run in runs),
        "runs": runs,
    }


def curves(run: Path) -> dict[str, list[list[float]]]:
    """For each arm of a run, its learning curve: pairs of environment steps and success rate."""
    found = {}
    for path in sorted(run.glob("training/*/curve.jsonl")):
        points = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = [[point["env_steps"], point["success_rate"]] for point in points]
    return found


def main(
    task: Annotated[list[str] | None, typer.Option(help="Tasks; all built-in rooms by default.")] = None,
    seeds: Annotated[int, typer.Option(help=f"Runs of each task but {CURVES}.")] = 3,
    directory: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs/solve_rate"),
) -> None:
    """Measure, end with one JSON line."""
    found: dict[str, Any] = {}
    with ray_running(), bars() as progress:
        for name in task or [built_in.name for built_in in ROOMS]:
            with_curves = name == CURVES
            found[name] = pooled(
                [
                    solved(name, seed, directory, progress, baselines=with_curves)
                    for seed in range(1 if with_curves else seeds)
                ]
            )
            if with_curves:
                found[name]["curves"] = curves(directory / f"{name}-0")
    setting = {"seeds": seeds, "cpus": os.cpu_count(), "machine": platform.machine(), "versions": versions()}
    print(json.dumps({"benchmark": "solve_rate", "setting": setting, "tasks": found}))


if __name__ == "__main__":
    quiet()
    typer.run(main)
