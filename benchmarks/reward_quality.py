"""Whether carl's rewards can be trusted: programs against the oracle, bad programs against the gate, and what follows.

Parts, each by itself with ``--parts``:

precision  every accepted program of every proposer against the oracle, on 200 held-out episodes a task (80 of the
           expert, 60 of random play, 60 of half-trained play): precision and recall per sub-task and frame of what is
           latched as done, against the event it means, latched in order. A sub-task means the event that first comes at
           the same frame in most expert episodes; one that coincides with none in half of them is listed as unmatched
           and never counted as right, nor as wrong: the minima are to be read beside how many there are. Completion is
           compared with success, episode by episode. Where frames do not show the last event (UnlockPickup's broken
           box), it is listed as a documented exception.
zoo        good programs, their harmless variants, bad programs and mutants (``zoo.py``) before the gate, on the
           episodes of a run and on held-out ones. The gate's limits were set with these programs in four rooms, where
           the shares show that they fit and are no estimate for programs of another kind; none was set with
           RedBlueDoors-6x6 and KeyCorridorS3R1 (``unseen``), whose doors, walls and plans are others. The oracle calls
           a program bad whose accuracy is worse than the original's by more than one percent, that is done before the
           end of an expert episode, or that pays random play more than 2 % of the return for sub-tasks that are not
           done.
hack       programs that mislead a policy: rejected, noticed, repaired or given up (``hacked.py``).
induction  programs without a model (``induction.py``).
success    ``carl run`` with a task's defaults, three seeds; beside it the better of the two sparse arms of each run.
steps      environment steps until success 0.95 on induction's program over those on the model's (``quality/steps.py``).
verify     seconds of verification over those of before (``verification.py``).

Results are kept as they come: stop it anywhere, and the same command goes on. To measure anew, name another
``--directory``. The last line is JSON; what was not measured is null.

    python benchmarks/reward_quality.py --parts precision --tasks DoorKey-6x6,Unlock
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import CalledProcessError
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `benchmarks` can be imported from anywhere

from benchmarks.quality.kept import Kept
from benchmarks.quality.others import SUCCESS_TASKS, last_line, success
from carl.cli import bars
from carl.cluster.logs import quiet
from carl.console.progress import Progress
from carl.runs.result import versions
from carl.tasks import BUILT_IN

PARTS = ("precision", "zoo", "hack", "induction", "success", "steps", "verify")
WITH_ORACLE = tuple(task.name for task in BUILT_IN if task.oracle is not None)


def main(
    parts: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(PARTS),
    tasks: Annotated[str, typer.Option(help="Which, separated by commas; each part has its own by default.")] = "",
    proposers: Annotated[str, typer.Option(help="Of the part precision.")] = "model,induction",
    seeds: Annotated[int, typer.Option(help="Runs of each task in the parts success and steps.")] = 3,
    directory: Annotated[Path, typer.Option(help="Where runs and results are kept.")] = Path("runs/reward_quality"),
) -> None:
    """Measure, end with one JSON line."""
    measures = {
        **MEASURES,
        "success": partial(_success, seeds),
        "steps": partial(_steps, seeds),
        "precision": partial(_precision, proposers.split(",")),
    }
    chosen = tuple(tasks.split(",")) if tasks else None
    with bars() as progress:
        asked = Asked(chosen, directory, Kept(directory / "results.json"), progress)
        found = {part: measures[part](asked) for part in parts.split(",")}
    print(json.dumps({"benchmark": "reward_quality", **headline(found), "parts": found, "versions": versions()}))


@dataclass(frozen=True)
class Asked:
    """What parts have in common; no tasks: each part's own."""

    tasks: tuple[str, ...] | None
    directory: Path
    kept: Kept
    progress: Progress


def _precision(proposers: list[str], asked: Asked) -> dict[str, Any]:
    from benchmarks.quality.precision import precision

    return precision(asked.tasks or WITH_ORACLE, proposers, asked.directory, asked.kept, asked.progress)


def _zoo(asked: Asked) -> dict[str, Any]:
    from benchmarks.quality.zoo import PLANS, zoo

    return zoo(asked.tasks or tuple(PLANS), asked.directory, asked.kept, asked.progress)


def _success(seeds: int, asked: Asked) -> dict[str, Any]:
    return success(asked.tasks or SUCCESS_TASKS, seeds, asked.directory, asked.kept, asked.progress)


def _steps(seeds: int, asked: Asked) -> dict[str, Any]:
    from benchmarks.quality.steps import STEPS_TASKS, steps

    return steps(asked.tasks or STEPS_TASKS, seeds, asked.directory, asked.kept, asked.progress)


def _induction(asked: Asked) -> dict[str, Any]:
    """Task by task, so that each is kept."""
    from benchmarks.induction import OTHERS, TASKS

    found: dict[str, Any] = {}
    for task in asked.tasks or (*(each.name for each in TASKS), *OTHERS):
        found |= measured_by("induction.py", asked, task)
    return found


def _hack(asked: Asked) -> dict[str, Any]:
    """Program by program, so that each is kept."""
    from benchmarks.hacked import PROGRAMS

    found: dict[str, Any] = {}
    for program in PROGRAMS:
        found |= measured_by("hacked.py", asked, "--program", program)
    return found


def measured_by(name: str, asked: Asked, *options: str) -> dict[str, Any]:
    """The last line of another benchmark; why there is none, so that a failure does not cost the other parts."""
    try:
        found: dict[str, Any] = asked.kept.get(" ".join((name, *options)), partial(last_line, name, *options))
    except (CalledProcessError, ValueError) as error:
        return {f"why not {' '.join((name, *options))}": str(error)}
    return found


MEASURES: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "zoo": _zoo,
    "hack": _hack,
    "induction": _induction,
    "verify": partial(measured_by, "verification.py"),
}


def headline(found: dict[str, Any]) -> dict[str, Any]:
    """The figures that are asked for, by their names; null where a part was not measured."""
    precision, zoo, hack = (found.get(part, {}) for part in ("precision", "zoo", "hack"))
    return {
        "precision_min": precision.get("precision_min"),
        "recall_min": precision.get("recall_min"),
        "unmatched": precision.get("unmatched"),
        "without_program": precision.get("without_program"),
        "bad_rejected": zoo.get("bad_rejected"),
        "good_rejected": zoo.get("good_rejected"),
        "dropped_last_rejected": zoo.get("dropped_last_rejected"),
        **{f"hack.{name}": hack.get(name) for name in ("rejected", "alarm_at", "repaired_success")},
        **{f"hack.{key}": value for key, value in hack.items() if key.startswith(("capped.", "milestones."))},
        **{key: value for key, value in found.get("induction", {}).items() if key.startswith("induction.")},
        **{f"success.{task}": one["mean"] for task, one in found.get("success", {}).items()},
        **{f"sparse.{task}": one["sparse"] for task, one in found.get("success", {}).items()},
        **{f"steps.{task}": one["induction_over_model"] for task, one in found.get("steps", {}).items()},
        "verify_over_before": found.get("verify", {}).get("verify_over_before"),
    }


if __name__ == "__main__":
    quiet()
    typer.run(main)
