"""A run at a glance, from nothing but its files: those of its directory, or their copy under a URI."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from carl.artefacts import CONFIG, RESULT, STAGES, watched
from carl.config import RunConfig
from carl.errors import ApprovalError, ConfigError, ProgramError, StoreError, command
from carl.methods.arms import arms_in
from carl.program import RewardProgram
from carl.runs.directory import config_of
from carl.runs.files import Files
from carl.runs.reader import Record, Run
from carl.runs.stages import check_names
from carl.runs.words import named
from carl.training.watched import summed

VERIFY = "verify"
"""The stage whose verdict is about one program."""

NEAR_S, FAR_S = 2.0, 10.0
"""Seconds between two looks at a directory, and at a copy under a URI, which is renewed less often."""

NEAR_SILENT_S, FAR_SILENT_S = 60.0, 600.0
"""Seconds without a sign of life after which a run is given up there: one that runs gives one every ten, and is copied
every thirty, or as long as its storage takes for all that is new."""


@dataclass(frozen=True)
class Trained:
    """How far the training of an arm has come.

    Attributes:
        points: of its learning curve.
        live: the counters after its last iteration, by the names of a point; empty if it noted none.
        watched: what the watch over it saw so far, as ``carl.training.watched.summed`` has it.
    """

    points: Sequence[Record]
    live: Record
    watched: Record = field(default_factory=dict)

    @property
    def now(self) -> Record:
        """The newest counters."""
        return self.live or self.points[-1]

    def at(self, *path: str) -> float:
        """A figure of ``now``; 0 if it holds none."""
        return _at(self.now, path)

    def since(self, *path: str) -> float:
        """How much something that only grows has grown since the last point but one, or since the beginning."""
        return self.at(*path) - (_at(self.points[-2], path) if len(self.points) > 1 else 0.0)


@dataclass(frozen=True)
class Glance:
    """What the files held when they were read.

    Attributes:
        run: its directory, or the URI of its copy.
        config: its configuration.
        stages: by name whether a stage is done, the seconds it took, when it began if it runs, and how it failed.
        program: which program the run has and who made it, in a sentence; empty if it has none that can be used.
        subtasks: names of its sub-tasks, in their order; none if there is no program yet.
        arms: those whose training has begun.
        asked: what all exchanges with the VLM so far cost, by the names of Usage, and the answers ``wanted``.
        result: what the run found; None before its end.
        changed: when one of its files was written last, in seconds since 1970.
        replaced: what is there of a program whose place another one took, a sentence each.
    """

    run: str
    config: RunConfig
    stages: Mapping[str, Record]
    program: str
    subtasks: tuple[str, ...]
    arms: Mapping[str, Trained]
    asked: Mapping[str, float]
    result: Record | None
    changed: float
    replaced: Sequence[str] = ()

    @property
    def runs(self) -> bool:
        """Whether a stage had begun and not ended, unless its driver is gone."""
        return any("since" in stage for stage in self.stages.values())

    @property
    def failed(self) -> str | None:
        """The stage that failed, if none was begun since."""
        return None if self.runs else next((name for name, stage in self.stages.items() if "failed" in stage), None)

    @property
    def waits(self) -> bool:
        """Whether it stopped until somebody approves its program."""
        return self.failed is not None and waits(self.stages[self.failed])

    @property
    def over(self) -> bool:
        """Whether the run has its result, of the program that is there, and no stage runs or failed."""
        return self.result is not None and not self.runs and not self.failed and not self.replaced

    @property
    def given_up(self) -> bool:
        """Whether it is not over and nothing goes on: it failed, or has been silent for as long as is allowed."""
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
    """Read a run, given as a directory or a URI; raises CarlError: ConfigError if there is none."""
    files = Files(run)
    read = Run(files)
    if not files.holds(CONFIG):
        raise ConfigError(f"{run} holds no run: there is no {CONFIG} in it")
    config = config_of(dict(read.config), files.where(CONFIG))
    check_names(read.stages, config, files.where(STAGES))
    names = [arm.name for arm in arms_in(read.config)]
    arms = {name: Trained(read.curve(name), read.live(name), summed(read.looks(name))) for name in names}
    return Glance(
        run=run,
        config=config,
        stages=_stages(read),
        program=_program(run, read),
        subtasks=read.subtasks,
        arms={arm: trained for arm, trained in arms.items() if trained.points or trained.live},
        asked=read.asked,
        result=read.result if files.holds(RESULT) else None,
        changed=files.changed(watched(names)),
        replaced=_replaced(run, read),
    )


def waits(stage: Record) -> bool:
    """Whether a stage, as it is noted, ended because nobody had approved the program."""
    return bool(stage.get("failed", {}).get("error") == ApprovalError.__name__)


def _stages(read: Run) -> dict[str, Record]:
    """What is noted of each stage, but for what a program by hand changed since: its verdict, or its approval."""
    program = _usable(read)
    approved = program is not None and program.approval is not None
    judged = program is None or read.verification.get("program_id") in (None, program.id)
    again = {"done": False, "undone": True}
    return {
        name: {key: value for key, value in stage.items() if key != "failed"} | again
        if (waits(stage) and approved) or (name == VERIFY and not judged and stage.get("done"))
        else stage
        for name, stage in read.stages.items()
    }


def replaced(run: str) -> list[str]:
    """What the run in a directory or under a URI has of a program whose place another one took, a sentence each."""
    return _replaced(run, Run(Files(run)))


def _replaced(run: str, read: Run) -> list[str]:
    program, found = _usable(read), []
    if program is None:
        return []
    if read.verification.get("program_id") not in (None, program.id):
        verify = command("verify", run)
        found.append(f"The program {program.id} is not verified: {verify} judges it, as `carl run` does.")
    if (before := read.result.get("program_id")) not in (None, program.id):
        found.append(f"The result and the trainings are of the program {before}, whose place {program.id} took.")
    return found


def _usable(read: Run) -> RewardProgram | None:
    """The run's program; None also where it cannot be used, of which the stage that needs it says what is wrong."""
    with suppress(ConfigError, ProgramError):
        return read.program
    return None


def _program(run: str, read: Run) -> str:
    program = _usable(read)
    return named(program, run) if program else ""


def follow(run: str, every_s: float | None = None) -> Iterator[Glance]:
    """Read a run now, and every so often until it is over or failed, or has been silent for as long as is allowed.

    Storage that cannot be read for a while is tried again. Raises what ``look`` raises, of the storage only at first.
    """
    pause = every_s or (FAR_S if "://" in run else NEAR_S)
    glance, changed = look(run), time.monotonic()
    yield glance
    while not glance.over and not glance.failed and time.monotonic() - changed < glance.patience_s:
        time.sleep(pause)
        before = glance.changed
        with suppress(StoreError):
            glance = look(run)
        if glance.changed != before:
            changed = time.monotonic()
        yield glance


def _at(record: Record, path: tuple[str, ...]) -> float:
    value: Any = record
    for key in path:
        value = value.get(key) or {}
    return float(value or 0.0)
