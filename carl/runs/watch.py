"""A run at a glance, from nothing but its files: those of its directory, or their copy under a URI."""

import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from carl.artefacts import CONFIG, CURVE, EXCHANGES, LIVE, PROGRAM, RESULT, STAGES, parsed, records, whole
from carl.config import Arm, RunConfig
from carl.console.plain import plain
from carl.errors import ConfigError, StoreError, shown
from carl.runs.directory import ORDER, config_of, stages_of
from carl.runs.result import ARM_NAMES, samples, summary
from carl.runs.storage import Storage
from carl.training.abstains import sentences
from carl.vlm.exchange import Usage

Record = Mapping[str, Any]

ARMS: tuple[Arm, ...] = get_args(Arm)
CURVES = {arm: f"training/{arm}/{CURVE}" for arm in ARMS}
LIVES = {arm: f"training/{arm}/{LIVE}" for arm in ARMS}

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

NEAR_S, FAR_S = 2.0, 10.0
"""Seconds between two looks at a directory, and at a copy under a URI, which is renewed less often."""

NEAR_SILENT_S, FAR_SILENT_S = 60.0, 600.0
"""Seconds without a sign of life after which a run is given up there: one that runs gives one every ten, and is copied
every thirty, or as long as its storage takes for all that is new."""


@dataclass(frozen=True)
class Trained:
    """How far the training of an arm has come: the points of its curve, and what ``live.json`` said."""

    points: list[Record]
    live: Record | None

    @property
    def now(self) -> Record:
        return self.live or self.points[-1]

    def at(self, *path: str) -> float:
        """A figure of now; 0 if it is not told."""
        return _at(self.now, path)

    def since(self, *path: str) -> float:
        """How much something that only grows has grown since the last point but one, or since the beginning."""
        return self.at(*path) - (_at(self.points[-2], path) if len(self.points) > 1 else 0.0)


@dataclass(frozen=True)
class Glance:
    """What the files said.

    Attributes:
        run: its directory, or the URI of its copy.
        config: what the run was told.
        stages: ``stages.json``: by name whether it is done, the seconds it took, when it began if it runs, and how it
            failed.
        subtasks: names of the program's, in their order; none if there is no program yet.
        arms: those whose training has begun.
        usage: what all exchanges with the VLM so far cost, as Usage says it.
        result: ``result.json``.
        changed: when a file of these was written last, in seconds since 1970.
    """

    run: str
    config: RunConfig
    stages: Mapping[str, Record]
    subtasks: tuple[str, ...]
    arms: Mapping[Arm, Trained]
    usage: Mapping[str, float]
    result: Record | None
    changed: float

    @property
    def runs(self) -> bool:
        """Whether a stage had begun and not ended, unless its driver is gone."""
        return any("since" in stage for stage in self.stages.values())

    @property
    def failed(self) -> str | None:
        """The stage that failed, if none was begun since."""
        return None if self.runs else next((name for name, stage in self.stages.items() if "failed" in stage), None)

    @property
    def over(self) -> bool:
        """The run has its result, and no stage runs or failed."""
        return self.result is not None and not self.runs and not self.failed

    @property
    def given_up(self) -> bool:
        """It is not over, and nothing goes on: it failed, or gave no sign of life for as long as it should."""
        return not self.over and (self.failed is not None or self.silent_s >= self.patience_s)

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of life."""
        return max(0.0, time.time() - self.changed)

    @property
    def patience_s(self) -> float:
        """Seconds after which silence means that nothing runs."""
        return FAR_SILENT_S if "://" in self.run else NEAR_SILENT_S


def look(run: str) -> Glance:
    """Read a run, given as a directory or a URI; raises ConfigError if there is none, and StoreError."""
    storage = Storage(run if "://" in run else Path(os.path.expanduser(run)).absolute().as_uri())
    files = _Files(run, storage)
    config = files.json(CONFIG)
    if config is None:
        raise ConfigError(f"{run} holds no run: there is no {CONFIG} in it")
    arms = {arm: Trained(files.lines(CURVES[arm], _check_point), files.live(LIVES[arm])) for arm in ARMS}
    return Glance(
        run=run,
        config=config_of(config, files.where(CONFIG)),
        stages=stages_of(files.json(STAGES) or {}, files.where(STAGES)),
        subtasks=files.subtasks(),
        arms={arm: trained for arm, trained in arms.items() if trained.points or trained.live},
        usage=_sum([_usage(line) for line in files.lines(EXCHANGES, _usage)]),
        result=files.json(RESULT),
        changed=storage.changed([CONFIG, STAGES, EXCHANGES, PROGRAM, *CURVES.values(), *LIVES.values()]),
    )


class _Files:
    """The files of a run, wherever it lies; each is what carl wrote, or raises ConfigError that names it."""

    def __init__(self, run: str, storage: Storage) -> None:
        self._run, self._storage = run.rstrip("/"), storage

    def where(self, name: str) -> str:
        return f"{self._run}/{name}"

    def json(self, name: str) -> dict[str, Any] | None:
        text = self._storage.read(name)
        return None if text is None else parsed(text, self.where(name), dict)

    def lines(self, name: str, check: Callable[[Record], object]) -> list[Record]:
        return [*records(self._storage.read(name) or "", self.where(name), check)]

    def live(self, name: str) -> Record | None:
        """The content of ``live.json``, named as in a point of the curve."""
        live = self.json(name)
        if live is None:
            return None
        with whole(self.where(name)):
            named = {**live, "reward": live["counts"]}
            _check_point(named)
            return named

    def subtasks(self) -> tuple[str, ...]:
        with whole(self.where(PROGRAM)):
            return tuple(str(part["name"]) for part in (self.json(PROGRAM) or {}).get("subtasks", ()))


def follow(run: str, every_s: float | None = None) -> Iterator[Glance]:
    """Look now and every so often until the run is over or failed, or gave no sign of life for as long as it should.

    Storage that fails for a while is looked at again.
    """
    pause = every_s or (FAR_S if "://" in run else NEAR_S)
    glance, heard = look(run), time.monotonic()
    yield glance
    while not glance.over and not glance.failed and time.monotonic() - heard < glance.patience_s:
        time.sleep(pause)
        before = glance.changed
        with suppress(StoreError):
            glance = look(run)
        if glance.changed != before:
            heard = time.monotonic()
        yield glance


def _check_point(point: Record) -> None:
    """Raise what makes a point of a curve, or what ``live.json`` says, unfit to be shown."""
    if point["env_steps"] is None:
        raise TypeError("env_steps is None")
    counts = ("env_steps", "seconds", "episodes", "succeeded", "reward_version", *MEASURED)
    for path in (*((name,) for name in counts), BEGUN, *FAULTS, ("reward", "cache_hits"), ("reward", "cache_misses")):
        value: Any = point
        for key in path:
            value = value.get(key)
            if value is None:
                break
        if not isinstance(value, int | float | None):
            raise TypeError(f"{'.'.join(path)} is {shown(value)}")


def _usage(exchange: Record) -> Record:
    """What an exchange cost, and how many answers it was to bring; none are missed of one that failed."""
    wanted = 0 if exchange.get("error") else int(exchange.get("draw", {}).get("n", 0))
    return {**Usage.model_validate(exchange["usage"]).model_dump(), "wanted": wanted}


def _sum(records: list[Record]) -> dict[str, float]:
    return {key: sum(record[key] for record in records) for key in (records[0] if records else {})}


def picture(glance: Glance) -> RenderableType:
    """A glance for a terminal: what the run found if it is over, and else how far it is."""
    if glance.result is not None and glance.over:
        with whole(f"{glance.run}/{RESULT}"):
            return summary(glance.result)
    head = f"{glance.config.task}, seed {glance.config.seed}: last sign of life {_age(glance.silent_s)} ago"
    parts: list[RenderableType] = [Text(plain(head), style="bold"), _stages(glance)]
    if glance.usage:
        parts.append(Text(plain(_vlm(glance))))
    if glance.arms:
        parts.append(_arms(glance))
    now = {arm: trained.now for arm, trained in glance.arms.items()}
    parts += [Text(sentence, style="bold red") for sentence in sentences(now, ARM_NAMES)]
    if glance.subtasks and any(trained.at(*BEGUN) for trained in glance.arms.values()):
        parts.append(_subtasks(glance))
    if ended := _ended(glance):
        parts += [Text(plain(ended), style="bold red"), Text(_to_go_on(glance))]
    return Group(*parts)


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
    table = Table(*ORDER, box=None, header_style="bold")
    table.add_row(*(_stage(glance.stages.get(name, {})) for name in ORDER))
    return table


def _stage(stage: Record) -> str:
    before = float(stage.get("seconds", 0.0))
    if "since" in stage:
        return f"runs, {before + max(0.0, time.time() - stage['since']):.0f} s"
    if stage.get("done"):
        return f"{before:.0f} s"
    return f"{'failed' if 'failed' in stage else 'stopped'}, {before:.0f} s" if stage else "-"


def _vlm(glance: Glance) -> str:
    usage = glance.usage
    return (
        f"{glance.config.vlm.model}: {usage['calls']} requests, {samples(usage)} "
        f"({usage['prompt_tokens']:,} tokens in, {usage['completion_tokens']:,} out, {usage['seconds']:.1f} s)"
    )


def _arms(glance: Glance) -> Table:
    columns = ("env steps", "steps/s", "training", "success", "return", "version", "cached", "faults")
    table = Table("trained on", *columns, box=None, header_style="bold")
    for arm, trained in glance.arms.items():
        table.add_row(ARM_NAMES[arm], *_figures(trained))
    return table


def _figures(trained: Trained) -> tuple[str, ...]:
    """What a point of the curve measures is the newest point's; what is a rate is of the time since the one before."""
    point = (trained.points or [{}])[-1]
    ended, succeeded = trained.since("episodes"), trained.since("succeeded")
    known, asked = trained.since("reward", "cache_hits"), trained.since("reward", "cache_misses")
    faults = [f"{count:,.0f} {words}" for path, words in FAULTS.items() if (count := trained.at(*path))]
    return (
        f"{trained.at('env_steps'):,.0f}",
        f"{trained.since('env_steps') / (trained.since('seconds') or 1.0):,.0f}",
        f"{succeeded / ended:.0%}" if ended else "-",
        *(f"{point[key]:.{digits}f}" if point.get(key) is not None else "-" for key, digits in MEASURED.items()),
        f"{trained.at('reward_version'):.0f}",
        f"{known / (known + asked):.0%}" if known + asked else "-",
        ", ".join(faults) or "none",
    )


def _subtasks(glance: Glance) -> Table:
    """How often each sub-task got done: lately by steps, since episodes take long, and in all by episodes."""
    arms = {arm: trained for arm, trained in glance.arms.items() if trained.at(*BEGUN)}
    columns = (f"{ARM_NAMES[arm]}: {what}" for arm in arms for what in ("done per 1,000 steps", "of all episodes"))
    table = Table("sub-task", *columns, box=None, header_style="bold")
    for number, name in enumerate(glance.subtasks, 1):
        cells = (cell for trained in arms.values() for cell in _fired(trained, number))
        table.add_row(Text(plain(f"{number} {name}")), *cells)
    return table


def _fired(trained: Trained, number: int) -> tuple[str, str]:
    path = "reward", f"fired:{number}"
    rate = 1_000 * trained.since(*path) / (trained.since("env_steps") or 1.0)
    return f"{rate:.2f}", f"{trained.at(*path) / trained.at(*BEGUN):.0%}"


def _at(record: Record, path: tuple[str, ...]) -> float:
    value: Any = record
    for key in path:
        value = value.get(key) or {}
    return float(value or 0.0)
