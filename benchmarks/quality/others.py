"""The parts that other benchmarks measure, and whole runs."""

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.quality.kept import ANSWERS, Kept
from carl.config import TrainConfig
from carl.console.progress import Progress
from carl.methods.arms import BASELINES
from carl.methods.code import CodeConfig
from carl.runs.pipeline import Pipeline

SUCCESS_TASKS = ("BlockedUnlockPickup", "KeyCorridorS3R2", "RedBlueDoors-6x6", "GoToRedBall", "OpenTwoDoors")


def last_line(script: str, *options: str) -> dict[str, Any]:
    """The JSON line at the end of what a script of benchmarks/ prints.

    Raises CalledProcessError if it fails, and ValueError if it ends with anything else.
    """
    path = Path(__file__).resolve().parents[1] / script
    done = subprocess.run([sys.executable, path, *options], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def success(names: Sequence[str], seeds: int, directory: Path, kept: Kept, progress: Progress) -> dict[str, Any]:
    """Final evaluations of ``carl run`` with a task's defaults, and of the sparse arms beside it, by task.

    The sparse arms get the same environment steps. A run that finds no program counts as 0; any other error is raised.
    """
    found = {}
    for name in names:
        runs = [
            kept.get(f"success/{name}/{seed}", partial(_solved, name, seed, directory, progress))
            for seed in range(seeds)
        ]
        shares = [run["success_rate"] for run in runs]
        sparse = [max(run["arms"][arm] for arm in BASELINES) for run in runs if "arms" in run]
        found[name] = {"mean": mean(shares), "lowest": min(shares), "sparse": mean(sparse), "runs": runs}
    return found


def mean(figures: Sequence[float]) -> float | None:
    """To four digits; None of nothing."""
    return round(sum(figures) / len(figures), 4) if figures else None


def _solved(task: str, seed: int, directory: Path, progress: Progress) -> dict[str, Any]:
    train = TrainConfig(evaluate_every=20)
    config = CodeConfig(task=task, seed=seed, run_dir=directory / f"{task}-run-{seed}", train=train)
    try:
        result = Pipeline(config, progress).run()
    except ANSWERS as error:
        return {"success_rate": 0.0, "why": str(error)}
    assert result is not None
    evaluation = result["evaluation"]
    arms = {name: arm["sampled"]["success_rate"] for name, arm in evaluation["arms"].items()}
    return {
        "success_rate": evaluation["success_rate"],
        "env_steps": result["env_steps"],
        "arms": arms,
        "seconds": round(sum(result["seconds"].values()), 1),
    }
