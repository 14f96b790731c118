"""Accepted programs against the oracle: precision and recall of every sub-task that means an event."""

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.quality.accuracy import Count, Held, all_shown, completed, counted, matched
from benchmarks.quality.held_out import held_out
from benchmarks.quality.kept import ANSWERS, Kept
from carl.config import SynthesisConfig
from carl.console.progress import Progress
from carl.methods.code import CodeConfig
from carl.program import RewardProgram
from carl.runs.pipeline import Pipeline
from carl.task import Task
from carl.tasks import get_task

PROPOSERS: dict[str, tuple[str, ...]] = {"model": ("model",), "induction": ("induction",), "default": ()}
"""``synthesis.proposers`` by what the option ``--proposers`` calls it; default: what a run asks by itself."""


def accepted(task: Task, proposer: str, directory: Path, progress: Progress) -> dict[str, Any]:
    """The program that a run of the stages before training accepts, as JSON, or why there is none.

    Raises CarlError for what passes: a process that was ended, a server that is down.
    """
    try:
        synthesis = SynthesisConfig(proposers=PROPOSERS[proposer])
        config = CodeConfig(task=task.name, run_dir=directory / f"{task.name}-{proposer}", synthesis=synthesis)
        pipeline = Pipeline(config, progress)
        pipeline.run(("collect", "synthesize", "verify"))
    except ANSWERS as error:
        return {"why": str(error)}
    program = RewardProgram.load(pipeline.dir / "program.json")
    return {"program": program.to_json(), "seconds": round(sum(pipeline.dir.seconds.values()), 1)}


def measured(program: RewardProgram, held: Held, documented: bool) -> dict[str, Any]:
    """Precision and recall by sub-task, and of completion against success, which counts episodes.

    ``documented``: frames do not show the last event, so that it and completion are exceptions.
    """
    made = all_shown(program, held)
    pairs = matched(program, held["expert"], made["expert"])
    events = list(held["expert"][0].events)
    counts = counted({k: event for k, (event, _) in pairs.items()}, made, held)
    return {
        "id": program.id,
        "subtasks": [
            {
                "name": program.subtasks[k].name,
                "event": event,
                "coincide": round(share, 3),
                **_figures(counts[k], documented and event == events[-1]),
            }
            for k, (event, share) in pairs.items()
        ],
        "completed": _figures(completed(made, held), documented),
        "unmatched": [subtask.name for k, subtask in enumerate(program.subtasks) if k not in pairs],
        "events_of_none": [name for name in events if name not in {event for event, _ in pairs.values()}],
    }


def _figures(count: Count, documented: bool) -> dict[str, Any]:
    return {
        "precision": round(count.precision, 4),
        "recall": round(count.recall, 4),
        "documented_exception": documented,
    }


def precision(
    names: list[str], proposers: list[str], directory: Path, kept: Kept, progress: Progress
) -> dict[str, Any]:
    """Figures by task and proposer, and the smallest ones; ``unmatched`` sub-tasks, and searches ``without_program``,
    have none, so that they are counted beside."""
    found: dict[str, Any] = {}
    for name in names:
        task = get_task(name)
        held: Held | None = None
        for proposer in proposers:
            key = f"{name}/{proposer}"
            made = kept.get(f"program/{key}", partial(accepted, task, proposer, directory, progress))
            if "program" not in made:
                found[key] = made
                continue
            if f"precision/{key}" not in kept.found and held is None:
                held = held_out(task)
            program = RewardProgram.model_validate_json(made["program"])
            figures = partial(measured, program, held or {}, "verify.max_unsolved" in task.defaults)
            found[key] = {**kept.get(f"precision/{key}", figures), "seconds": made["seconds"]}
    counting = [
        part
        for one in found.values()
        if "subtasks" in one
        for part in (*one["subtasks"], one["completed"])
        if not part["documented_exception"]
    ]
    return {
        "precision_min": min((part["precision"] for part in counting), default=None),
        "recall_min": min((part["recall"] for part in counting), default=None),
        "unmatched": sum(len(one.get("unmatched", ())) for one in found.values()),
        "without_program": [key for key, one in found.items() if "why" in one],
        "programs": found,
    }
