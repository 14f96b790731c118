"""A run at a glance, from nothing but its files: those of its directory, or their copy under a URI."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from carl.config import Arm, RunConfig
from carl.errors import ConfigError, StoreError
from carl.result import ARM_NAMES, summary
from carl.rundir import CONFIG, ORDER, STAGES
from carl.storage import Storage

Record = Mapping[str, Any]

PROGRAM, EXCHANGES = "program.json", "synthesis/exchanges.jsonl"
ARMS: tuple[Arm, ...] = get_args(Arm)
CURVES = {arm: f"training/{arm}/curve.jsonl" for arm in ARMS}

BEGUN = ("reward", "begun")
"""Where a point of a curve counts the episodes that a program was run for."""

NEAR_S, FAR_S = 2.0, 10.0
"""Seconds between two looks at a directory, and at a copy under a URI, which is renewed less often."""


@dataclass(frozen=True)
class Glance:
    """What the files said.

    Attributes:
        config: what the run was told.
        stages: ``stages.json``: by name whether it is done, the seconds it took, and when it began if it runs.
        subtasks: names of the program's, in their order; none if there is no program yet.
        curves: points of the learning curve, by arm.
        usage: what all exchanges with the VLM so far cost, as Usage says it.
        result: ``result.json``.
        changed: when a file of these was written last, in seconds since 1970.
    """

    config: RunConfig
    stages: Mapping[str, Record]
    subtasks: tuple[str, ...]
    curves: Mapping[Arm, list[Record]]
    usage: Mapping[str, float]
    result: Record | None
    changed: float

    @property
    def over(self) -> bool:
        """The run has its result, and no stage runs."""
        return self.result is not None and not any("since" in stage for stage in self.stages.values())


def look(run: str) -> Glance:
    """Read a run, given as a directory or a URI; raises ConfigError if there is none, and StoreError."""
    files = Storage(run if "://" in run else Path(run).absolute().as_uri())
    try:
        text = files.read(CONFIG)
        if text is None:
            raise ConfigError(f"{run} holds no run: there is no {CONFIG} in it")
        curves = {arm: _lines(files.read(curve)) for arm, curve in CURVES.items()}
        return Glance(
            config=RunConfig.model_validate_json(text),
            stages=json.loads(files.read(STAGES) or "{}"),
            subtasks=tuple(part["name"] for part in json.loads(files.read(PROGRAM) or "{}").get("subtasks", ())),
            curves={arm: points for arm, points in curves.items() if points},
            usage=_sum([line["usage"] for line in _lines(files.read(EXCHANGES))]),
            result=json.loads(files.read("result.json") or "null"),
            changed=files.changed([STAGES, EXCHANGES, PROGRAM, *CURVES.values()]),
        )
    except ValueError as error:
        raise ConfigError(f"{run} holds something that this carl cannot read: {error}") from error


def follow(run: str, every_s: float | None = None) -> Iterator[Glance]:
    """Look now and every so often until the run is over; storage that fails for a while is looked at again."""
    pause = every_s or (FAR_S if "://" in run else NEAR_S)
    glance = look(run)
    yield glance
    while not glance.over:
        time.sleep(pause)
        try:
            glance = look(run)
        except StoreError:
            continue
        yield glance


def _lines(text: str | None) -> list[Record]:
    """The records of a JSONL file; the last line may be half written."""
    whole = (text or "").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def _sum(records: list[Record]) -> dict[str, float]:
    return {key: sum(record[key] for record in records) for key in (records[0] if records else {})}


def picture(glance: Glance) -> RenderableType:
    """A glance for a terminal: what the run found if it is over, and else how far it is."""
    if glance.result is not None and glance.over:
        return summary(glance.result)
    quiet_s = max(0.0, time.time() - glance.changed)
    head = f"{glance.config.task}, seed {glance.config.seed}: last news {quiet_s:.0f} s ago"
    parts: list[RenderableType] = [Text(head, style="bold"), _stages(glance)]
    if glance.usage:
        parts.append(Text(_vlm(glance)))
    if glance.curves:
        parts.append(_arms(glance))
    if glance.subtasks and any(_at(points[-1], BEGUN) for points in glance.curves.values()):
        parts.append(_subtasks(glance))
    return Group(*parts)


def _stages(glance: Glance) -> Table:
    table = Table(*ORDER, box=None, header_style="bold")
    table.add_row(*(_stage(glance.stages.get(name, {})) for name in ORDER))
    return table


def _stage(stage: Record) -> str:
    before = float(stage.get("seconds", 0.0))
    if "since" in stage:
        return f"runs, {before + max(0.0, time.time() - stage['since']):.0f} s"
    if stage.get("done"):
        return f"{before:.0f} s"
    return f"stopped, {before:.0f} s" if stage else "-"


def _vlm(glance: Glance) -> str:
    usage = glance.usage
    return (
        f"{glance.config.vlm.model}: {usage['calls']} requests, {usage['samples']} samples ({usage['prompt_tokens']:,} "
        f"tokens in, {usage['completion_tokens']:,} out, {usage['seconds']:.1f} s)"
    )


def _arms(glance: Glance) -> Table:
    columns = ("env steps", "steps/s", "success", "return", "reward version", "from cache", "faults")
    table = Table("trained on", *columns, box=None, header_style="bold")
    for arm, points in glance.curves.items():
        table.add_row(ARM_NAMES[arm], *_newest(points))
    return table


def _newest(points: list[Record]) -> tuple[str, ...]:
    """The newest point of a curve; what is a rate is of the time since the point before."""
    point, counts = points[-1], points[-1].get("reward", {})
    known, asked = _since(points, "reward", "cache_hits"), _since(points, "reward", "cache_misses")
    faults = {"abstains": "abstains", "box_restarts": "boxes replaced", "quarantined": "quarantines"}
    return (
        f"{point['env_steps']:,}",
        f"{_since(points, 'env_steps') / (_since(points, 'seconds') or 1.0):,.0f}",
        f"{point['success_rate']:.3f}",
        "-" if point["mean_return"] is None else f"{point['mean_return']:.2f}",
        str(point["reward_version"]),
        f"{known / (known + asked):.0%}" if known + asked else "-",
        ", ".join(f"{counts[key]} {words}" for key, words in faults.items() if counts.get(key)) or "none",
    )


def _subtasks(glance: Glance) -> Table:
    """How often each sub-task got done: lately by steps, since episodes take long, and in all by episodes."""
    arms = {arm: points for arm, points in glance.curves.items() if _at(points[-1], BEGUN)}
    columns = (f"{ARM_NAMES[arm]}: {what}" for arm in arms for what in ("done per 1,000 steps", "of all episodes"))
    table = Table("sub-task", *columns, box=None, header_style="bold")
    for number, name in enumerate(glance.subtasks, 1):
        cells = (cell for points in arms.values() for cell in _fired(points, number))
        table.add_row(f"{number} {name}", *cells)
    return table


def _fired(points: list[Record], number: int) -> tuple[str, str]:
    path = "reward", f"fired:{number}"
    rate = 1_000 * _since(points, *path) / (_since(points, "env_steps") or 1.0)
    return f"{rate:.2f}", f"{_at(points[-1], path) / _at(points[-1], BEGUN):.0%}"


def _since(points: list[Record], *path: str) -> float:
    """How much something that only grows has grown between the two newest points; from nothing if there is one."""
    return _at(points[-1], path) - (_at(points[-2], path) if len(points) > 1 else 0.0)


def _at(point: Record, path: tuple[str, ...]) -> float:
    value: Any = point
    for key in path:
        value = value.get(key) or {}
    return float(value or 0.0)
