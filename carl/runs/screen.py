"""What a terminal shows of a run: how far it is, or what it has found."""

import shlex
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from carl.artefacts import RESULT, whole
from carl.config import RunConfig
from carl.console.plain import plain
from carl.methods.arms import arm_of
from carl.runs.reader import Record
from carl.runs.stages import stages_of
from carl.runs.watch import Glance, Trained, waits
from carl.runs.words import asking, cached, whence, with_interval
from carl.task import LONGEST
from carl.training.abstains import sentences
from carl.training.watched import sentences as of_watch

BEGUN = ("reward", "begun")
"""Where a point of a curve counts the episodes that a program was run for."""

FAULTS = {
    ("reward", "abstains"): "abstains",
    ("reward", "cut"): "episodes cut",
    ("reward", "box_restarts"): "boxes replaced",
    ("reward", "quarantined"): "quarantines",
    ("rework_steps",): "steps trained again",
}

MEASURED = {"success_rate": 3, "mean_return": 2}
"""What a point of the curve measures, and the digits that it is shown with."""


def picture(glance: Glance) -> RenderableType:
    """A glance for a terminal: what the run found if it is over, and else how far it is."""
    if glance.result is not None and glance.over:
        with whole(f"{glance.run}/{RESULT}"):
            return summary(glance.result)
    last = "last sign of life" if glance.runs else "no stage runs, last change"
    head = f"{glance.config.task}, seed {glance.config.seed}: {last} {_age(glance.silent_s)} ago"
    parts: list[RenderableType] = [Text(plain(head), style="bold"), _stages(glance)]
    if glance.program:
        parts.append(Text(plain(glance.program)))
    parts += [Text(plain(sentence), style="bold red") for sentence in glance.replaced]
    if glance.asked:
        parts.append(Text(plain(asking(_model(glance.config), glance.asked))))
    if glance.arms:
        parts.append(_arms(glance))
    now = {arm_of(arm).short: trained.now for arm, trained in glance.arms.items()}
    warnings = [*sentences(now), *_alarms({arm: trained.watched for arm, trained in glance.arms.items()})]
    parts += [Text(plain(sentence), style="bold red") for sentence in warnings]
    if glance.subtasks and any(trained.at(*BEGUN) for trained in glance.arms.values()):
        parts.append(_subtasks(glance))
    if ended := _ended(glance):
        parts += [Text(plain(ended), style="bold red"), Text(_to_go_on(glance))]
    return Group(*parts)


def _model(config: RunConfig) -> str:
    vlm = config.model_dump().get("vlm")
    return str(vlm["model"]) if vlm else "the VLM"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _ended(glance: Glance) -> str:
    """What a run that goes on no more came to; empty if it may go on."""
    if glance.failed:
        failed = glance.stages[glance.failed]["failed"]
        ago = _age(max(0.0, time.time() - failed["time"]))
        if glance.waits:
            return f"{glance.failed} waits for approval since {ago}: {failed['message']}"
        return f"{glance.failed} failed {ago} ago. {failed['error']}: {failed['message']}"
    if glance.silent_s < glance.patience_s:
        return ""
    gone = "its driver is gone" + (", or does not reach its storage" if "://" in glance.run else "")
    return f"No sign of life for {_age(glance.silent_s)}: {gone if glance.runs else 'nothing runs'}."


def _to_go_on(glance: Glance) -> str:
    if "://" in glance.run:
        return "The command that started it goes on from here."
    return f"To go on: carl run {shlex.quote(glance.config.task)} --run-dir {shlex.quote(glance.run)}"


def _stages(glance: Glance) -> Table:
    names = [stage.name for stage in stages_of(glance.config)]
    table = Table(*names, box=None, header_style="bold")
    table.add_row(*(_stage(glance.stages.get(name, {})) for name in names))
    return table


def _stage(stage: Record) -> str:
    before = float(stage.get("seconds", 0.0))
    if "since" in stage:
        return f"runs, {before + max(0.0, time.time() - stage['since']):.0f} s"
    if stage.get("done"):
        return f"{before:.0f} s"
    if waits(stage):
        return f"waits for approval, {before:.0f} s"
    ended = "failed" if "failed" in stage else "to do again" if stage.get("undone") else "stopped"
    return f"{ended}, {before:.0f} s" if stage else "-"


def _arms(glance: Glance) -> Table:
    columns = ("env steps", "steps/s", "training", "success", "return", "version", "cached", "faults")
    table = Table("trained on", *columns, box=None, header_style="bold")
    for arm, trained in glance.arms.items():
        table.add_row(arm_of(arm).short, *_figures(trained))
    return table


def _figures(trained: Trained) -> tuple[str, ...]:
    """What a point of the curve measures is the newest point's; what is a rate is of the time since the one before."""
    point = (trained.points or [{}])[-1]
    ended, succeeded = trained.since("episodes"), trained.since("succeeded")
    known = cached(trained.since("reward", "cache_hits"), trained.since("reward", "cache_misses"))
    faults = [f"{count:,.0f} {words}" for path, words in FAULTS.items() if (count := trained.at(*path))]
    return (
        f"{trained.at('env_steps'):,.0f}",
        f"{trained.since('env_steps') / (trained.since('seconds') or 1.0):,.0f}",
        f"{succeeded / ended:.0%}" if ended else "-",
        *(f"{point[key]:.{digits}f}" if point.get(key) is not None else "-" for key, digits in MEASURED.items()),
        f"{trained.at('reward_version'):.0f}",
        "-" if known is None else f"{known:.0%}",
        ", ".join(faults) or "none",
    )


def _subtasks(glance: Glance) -> Table:
    """How often each sub-task got done: lately by steps, since episodes take long, and in all by episodes."""
    arms = {arm: trained for arm, trained in glance.arms.items() if trained.at(*BEGUN)}
    columns = (f"{arm_of(arm).short}: {what}" for arm in arms for what in ("done per 1,000 steps", "of all episodes"))
    table = Table("sub-task", *columns, box=None, header_style="bold")
    for number, name in enumerate(glance.subtasks, 1):
        cells = (cell for trained in arms.values() for cell in _fired(trained, number))
        table.add_row(Text(plain(f"{number} {name}")), *cells)
    return table


def _fired(trained: Trained, number: int) -> tuple[str, str]:
    path = "reward", f"fired:{number}"
    rate = 1_000 * trained.since(*path) / (trained.since("env_steps") or 1.0)
    return f"{rate:.2f}", f"{trained.at(*path) / trained.at(*BEGUN):.0%}"


def summary(result: Mapping[str, Any]) -> RenderableType:
    """The comparison of the arms, as a table for a terminal."""
    arms = result["evaluation"]["arms"]
    episodes = result["evaluation"]["episodes"]
    columns = ("trained on", "sampled", "greedy", "length", "env steps", "steps/s", "training")
    table = Table(*columns, box=None, header_style="bold")
    for name, arm in arms.items():
        table.add_row(
            arm_of(name).short,
            *(_rate(arm.get(mode)) for mode in ("sampled", "greedy")),
            f"{arm[arm['headline']]['mean_length']:.1f}",
            f"{arm['env_steps']:,}",
            f"{arm['env_steps_per_s']:,.0f}",
            f"{arm['seconds']:.0f} s",
        )
    head = plain(f"{result['task']}, seed {result['seed']}, {episodes} evaluation episodes for each figure")
    said = sentences({arm_of(name).short: arm for name, arm in arms.items()})
    watched = _alarms({name: arm.get("watch") or {} for name, arm in arms.items()})
    warnings = (Text(plain(sentence), style="bold red") for sentence in (*said, *watched))
    found = (plain(_vlm(result)), plain(_program(result)), *_notes(result))
    lines = (_experts(result), *found, *_cut(arms), _seconds(result))
    return Group(Text(head, style="bold"), table, *warnings, *(Text(line) for line in lines if line))


def _alarms(watched: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the watch over each arm has to say."""
    return [sentence for arm, one in watched.items() for sentence in of_watch(arm_of(arm).short, one)]


def _rate(evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        return "not measured"
    return with_interval(evaluation["success_rate"], *evaluation["interval"])


def _experts(result: Mapping[str, Any]) -> str:
    """Nothing where all of them succeeded."""
    counts = result.get("experts") or {}
    if not counts.get("failed"):
        return ""
    played = counts["recorded"] + counts["failed"]
    return f"The expert failed in {counts['failed']} of {played} episodes, which were passed over."


def _vlm(result: Mapping[str, Any]) -> str:
    vlm, search = result.get("vlm"), result.get("search") or {}
    if not vlm and not search.get("proposers"):
        return "No VLM was asked."
    found, now = search.get("program"), result["program_id"]
    other = f"program {found}, whose place {now} took" if found and found != now else f"program {now}"
    tried = f"candidates tried: {result['candidates']}, {other}."
    if vlm:
        return f"{asking(vlm['model'], vlm)}; {tried}"
    return f"No VLM was asked: the search took {search['spent']['seconds']:.0f} s; {tried}"


def _notes(result: Mapping[str, Any]) -> list[str]:
    """What is to be said of the program that was found."""
    return [plain(str(note)) for note in (result.get("search") or {}).get("notes") or ()]


def _program(result: Mapping[str, Any]) -> str:
    return whence(str(result.get("program_id")), result.get("provenance") or {})


def _cut(arms: Mapping[str, Any]) -> list[str]:
    """A line if episodes had to be cut."""
    trained = sum(arm.get("cut", 0) for arm in arms.values())
    evaluated = sum((arm.get(mode) or {}).get("cut", 0) for arm in arms.values() for mode in ("sampled", "greedy"))
    if not trained + evaluated:
        return []
    return [
        f"{trained} episodes of training and {evaluated} of evaluation were cut after {LONGEST:,} steps: the "
        "environment sets no time limit. Give it one in the task's make(), such as gymnasium.wrappers.TimeLimit."
    ]


def _seconds(result: Mapping[str, Any]) -> str:
    stages = result["seconds"]
    return f"{sum(stages.values()):.0f} s: " + ", ".join(f"{name} {took:.0f}" for name, took in stages.items())
