"""Environment steps that training needs on a program found without a model, over those on the model's program."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.quality.kept import Kept
from benchmarks.quality.precision import accepted
from benchmarks.sample_efficiency import arrive
from carl.cluster.session import ray_running
from carl.console.progress import Progress
from carl.program import RewardProgram
from carl.tasks import get_task

STEPS_TASKS = ("DoorKey-6x6", "DoorKey-8x8", "Unlock")
BOTH = ("model", "induction")


def steps(names: Sequence[str], seeds: int, directory: Path, kept: Kept, progress: Progress) -> dict[str, Any]:
    """By task: both programs, the steps until success 0.95 of every seed, and induction's mean over the model's.

    The programs are those of seed 0; their seeds of training take turns. As in ``sample_efficiency.py`` a training has
    arrived when 100 selection episodes reach 0.95. One that never does counts as its budget, and its seed is listed
    under ``never``: the ratio is then a bound. Where one of the programs was not found it says why, without a ratio.
    """
    found: dict[str, Any] = {}
    for name in names:
        made = {
            one: kept.get(f"program/{name}/{one}", partial(accepted, get_task(name), one, directory, progress))
            for one in BOTH
        }
        lacking = {one: made[one]["why"] for one in BOTH if "program" not in made[one]}
        if lacking:
            found[name] = {"why": lacking, "induction_over_model": None}
            continue
        programs = {one: RewardProgram.from_json(made[one]["program"]) for one in BOTH}
        runs = _runs(name, programs, seeds, directory, kept, progress)
        found[name] = {one: {"program": programs[one].id, **_together(runs[one])} for one in BOTH}
        found[name]["induction_over_model"] = over(runs["induction"], runs["model"])
    return found


def _runs(
    task: str, programs: dict[str, RewardProgram], seeds: int, directory: Path, kept: Kept, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {one: [] for one in programs}
    for seed in range(seeds):
        for one, program in programs.items():
            train = partial(_arrived, task, program, seed, directory / "steps", progress)
            runs[one].append(kept.get(f"steps/{task}/{program.id}/{seed}", train))
    return runs


def _arrived(task: str, program: RewardProgram, seed: int, directory: Path, progress: Progress) -> dict[str, Any]:
    with ray_running():
        return arrive(task, program, "code", seed, directory, progress)


def _together(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "steps": [run["steps"] for run in runs],
        "never": [seed for seed, run in enumerate(runs) if not run["reached"]],
    }


def over(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> float:
    """Mean steps of ``ours`` over the mean of ``theirs``."""
    return round(sum(run["steps"] for run in ours) / sum(run["steps"] for run in theirs), 3)
