"""Programs that mislead, with the gate off: when the watch raises its alarm, and what is made of it.

timer       done once enough pixels have changed, as they do when an agent walks about and leaves things elsewhere.
            DoorKey-6x6, with ``watch.repair``.
capped      done at the goal, but pays up to 0.9 for how far to the right the agent is, which the lava is as well.
            LavaGapS7; trained with the weight left as it is, which shows the harm, and as by default.
milestones  the key and the door, and nothing after. KeyCorridorS3R1, beside the sparse reward.

Each is put in the place of the verified program of a run, which then trains. ``rejected`` is whether the gate, asked,
rejects it; ``alarm_at`` is the share of the budget after which the watch raised its first alarm, null where it raised
none; ``repaired_success``, ``success`` and the like are of 200 final episodes. The last line is JSON. Stop it anywhere;
the same command continues it.

    python benchmarks/hacked.py --program timer
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `benchmarks` can be imported from anywhere

from benchmarks.misleading import CAPPED, MILESTONES, TIMER
from carl.artefacts import CURVE, PROGRAM, VERIFICATION, of_arm, records, write_json, write_text
from carl.cli import bars
from carl.cluster.logs import quiet
from carl.cluster.session import ray_running
from carl.config import TrainConfig, WatchConfig
from carl.console.progress import Progress
from carl.methods.code import CodeConfig, tried_out
from carl.program import RewardProgram
from carl.runs.pipeline import Pipeline
from carl.runs.result import versions


@dataclass(frozen=True)
class Misleading:
    """A program that misleads, and how it is trained on.

    Attributes:
        task, env_steps: where, and for how long.
        watches: how it is watched in each training, by the training's name.
        baselines: whether the sparse reward trains beside it.
    """

    program: RewardProgram
    task: str
    env_steps: int
    watches: dict[str, WatchConfig]
    baselines: bool = False


PROGRAMS = {
    "timer": Misleading(TIMER, "DoorKey-6x6", 150_000, {"repaired": WatchConfig(repair=True)}),
    "capped": Misleading(
        CAPPED, "LavaGapS7", 60_000, {"unanswered": WatchConfig(anneal=False), "annealed": WatchConfig()}
    ),
    "milestones": Misleading(MILESTONES, "KeyCorridorS3R1", 120_000, {"annealed": WatchConfig()}, baselines=True),
}


def misled(name: str, seed: int, directory: Path, progress: Progress) -> dict[str, Any]:
    """The trainings on the program ``name``, and the figures of the last of them; the timer's have no prefix."""
    one = PROGRAMS[name]
    found = {
        how: _trained(one, watch, seed, directory / f"{one.task}-{seed}-{name}-{how}", progress)
        for how, watch in one.watches.items()
    }
    *others, (how, last) = found.items()
    success = {f"{arm}_success": outcome["success"] for arm, outcome in last["arms"].items()}
    success["repaired_success" if how == "repaired" else "success"] = success.pop("code_success")
    success |= {f"{other}_success": training["arms"]["code"]["success"] for other, training in others}
    figures = {"rejected": last["rejected"], "alarm_at": last["alarm_at"], **success}
    prefix = "" if name == "timer" else f"{name}."
    return {f"{prefix}{key}": value for key, value in figures.items()} | {name: found}


def _trained(one: Misleading, watch: WatchConfig, seed: int, run_dir: Path, progress: Progress) -> dict[str, Any]:
    train = TrainConfig(env_steps=one.env_steps, baselines=one.baselines)
    pipeline = Pipeline(CodeConfig(task=one.task, seed=seed, run_dir=run_dir, train=train, watch=watch), progress)
    pipeline.run(["collect"])
    if not pipeline.dir.done("verify"):
        _put(one.program, pipeline)
    result = pipeline.run(["train", "evaluate", "report"])
    assert result is not None
    gate = json.loads((run_dir / "gate.json").read_text())
    arms = result["evaluation"]["arms"]
    watched = arms["code"]["watch"]
    return {
        "rejected": not gate["accepted"],
        "failed": sorted({check["name"] for check in gate["checks"] if not check["passed"]}),
        "alarm_at": watched["raised"][0]["share"] if watched["raised"] else None,
        "alarms": [(alarm["rule"], alarm["env_steps"]) for alarm in watched["raised"]],
        "weight": watched["weight"],
        "repairs": watched["repairs"],
        "arms": {arm: _outcome(arm, outcome, run_dir) for arm, outcome in arms.items()},
        "watch_over_training_seconds": round(watched["seconds"] / arms["code"]["seconds"], 4),
    }


def _put(program: RewardProgram, pipeline: Pipeline) -> None:
    """Make ``program`` the verified one of a run, whatever the gate says of it."""
    folder, report = pipeline.dir.path, tried_out(pipeline.work, program)
    write_json(folder / "gate.json", report.model_dump(mode="json"))
    write_text(folder / PROGRAM, program.to_json())
    write_json(folder / VERIFICATION, report.model_copy(update={"accepted": True}).model_dump(mode="json"))
    for stage in ("synthesize", "verify"):
        with pipeline.dir.stage(stage):
            pass


def _outcome(arm: str, outcome: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """The final success of an arm, and its learning curve as (environment steps, success)."""
    path = run_dir / of_arm(arm, CURVE)
    curve = [(point["env_steps"], point["success_rate"]) for point in records(path.read_text(), str(path))]
    sampled = outcome["sampled"]
    return {"success": sampled["success_rate"], "interval": sampled["interval"], "curve": curve}


def main(
    program: Annotated[list[str] | None, typer.Option(help=f"{', '.join(PROGRAMS)}.", show_default="all")] = None,
    seed: Annotated[int, typer.Option(help="Of the runs.")] = 0,
    directory: Annotated[Path, typer.Option(help="Where runs go.")] = Path("runs/hacked"),
) -> None:
    """Train on each program with the gate switched off."""
    with bars() as progress, ray_running(progress):
        found: dict[str, Any] = {}
        for name in program or PROGRAMS:
            found |= misled(name, seed, directory, progress)
    print(json.dumps({"seed": seed, **found, "versions": versions()}))


if __name__ == "__main__":
    quiet()
    typer.run(main)
