"""A run, read from its files wherever they lie: by what each file is, and not by its name."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np

from carl.artefacts import (
    CANDIDATES,
    CONFIG,
    CURVE,
    EPISODE,
    EXCHANGES,
    LIVE,
    PAIRS,
    PROGRAM,
    REPAIR,
    RESULT,
    STAGES,
    SUBJECT,
    SYNTHESIS,
    TRAJECTORIES,
    VERIFICATION,
    WATCH,
    WATCHED,
    of_arm,
)
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import CarlError, ProgramError
from carl.methods.arms import arms_in
from carl.methods.origin import notes_on
from carl.nested import renamed
from carl.program import RewardProgram
from carl.runs.files import Files
from carl.task import Frame
from carl.tasks import get_task
from carl.training.watched import MAX_REPAIRS, summed
from carl.vlm.exchange import Usage

Record = Mapping[str, Any]

MOST_SETS = 20
"""Sets of held-out episodes that are looked for; a search uses fewer."""
Found = TypeVar("Found")


class Reading(Protocol):
    """What is done about a file that cannot be used."""

    def __call__(self, read: Callable[[], Found]) -> Found | None:
        """What ``read`` returns; None, or whatever it raises, where that is CarlError."""


def strictly(read: Callable[[], Found]) -> Found | None:
    """Raises what ``read`` raises."""
    return read()


class Notes(list[str]):
    """Counts what cannot be used as missing, and keeps what ``read`` raised as a sentence."""

    def __call__(self, read: Callable[[], Found]) -> Found | None:
        """What ``read`` returns; None if it raises a CarlError, whose message is kept."""
        try:
            return read()
        except CarlError as error:
            self.append(str(error))
            return None


@dataclass(frozen=True)
class Candidate:
    """One answer of the VLM: a program and the report that decided last, or why it never became a program.

    ``spent`` is what the search had spent by then, by the names of its budget; ``proposer`` is who proposed it.
    """

    name: str
    program: RewardProgram | None
    report: Record
    rejected: str
    answer: str
    spent: Record = field(default_factory=dict)
    proposer: str = ""

    @property
    def accepted(self) -> bool:
        """Whether verification accepted the program."""
        return self.program is not None and bool(self.report.get("accepted"))


@dataclass
class Run:
    """What the files of a run held when each was first looked at; empty, or None, for those that are not there.

    Attributes:
        files: where they lie.
        reading: what is done about one that cannot be used: by default its error is raised.
    """

    files: Files
    reading: Reading = field(default=strictly)
    _held: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def config(self) -> Record:
        """The configuration, as it was written."""
        return self._mapping(CONFIG)

    @property
    def method(self) -> str:
        """The name of the method that the run was configured for; that of the default if it holds none."""
        return str(as_record(renamed(self.config).get("reward")).get("method") or "code")

    @property
    def arms(self) -> Sequence[str]:
        """Names of the arms that the run may have trained, its method's first, unless that is a baseline."""
        return [arm.name for arm in arms_in(self.config)]

    @property
    def stages(self) -> Record:
        """What is noted of each stage."""
        return self._mapping(STAGES)

    @property
    def result(self) -> Record:
        """What the run found in the end."""
        return self._mapping(RESULT)

    @property
    def synthesis(self) -> Record:
        """How the search for a program ended."""
        return self._mapping(SYNTHESIS)

    @property
    def verification(self) -> Record:
        """The report on the program, of episodes that the search never saw."""
        return self._mapping(VERIFICATION)

    @property
    def exchanges(self) -> Sequence[Record]:
        """Every exchange with the VLM."""
        return self._read(EXCHANGES) or []

    @cached_property
    def asked(self) -> Mapping[str, float]:
        """The sum over these exchanges of what they cost, and of the answers ``wanted``; empty if there are none.

        An exchange that failed wanted none.
        """
        costs = [as_record(one["usage"]) for one in self.exchanges]
        wanted = [0 if one.get("error") else as_record(one.get("draw")).get("n") or 0 for one in self.exchanges]
        total = {name: sum(cost.get(name) or 0 for cost in costs) for name in Usage.model_fields}
        return total | {"wanted": sum(wanted)} if costs else {}

    @property
    def usage(self) -> Record:
        """What asking the VLM cost, as summed up by the run, or else by ``asked``."""
        return as_record(self.result.get("vlm")) or as_record(self.synthesis.get("usage")) or self.asked

    @property
    def seconds(self) -> Record:
        """Wall-clock seconds of each stage: those of the result, or else what they took so far."""
        took = self.took
        return as_record(self.result.get("seconds")) or took

    @property
    def took(self) -> Mapping[str, float]:
        """Wall-clock seconds of each stage, over all the times that it was started and came to an end."""
        return {name: stage["seconds"] for name, stage in self.stages.items() if stage.get("seconds") is not None}

    @property
    def task_name(self) -> str:
        """The task's name; where no file holds it, that of the run's folder."""
        return str(self.result.get("task") or self.config.get("task") or self.files.run.rpartition("/")[2])

    @cached_property
    def description(self) -> str:
        """The task in words; empty if this installation does not have it."""
        try:
            return get_task(self.task_name).description
        except CarlError:
            return ""

    @property
    def program(self) -> RewardProgram | None:
        """The program that the policy is trained on."""
        found: RewardProgram | None = self._read(PROGRAM)
        return found

    def programs(self, arm: str) -> Mapping[str, RewardProgram]:
        """By their ids, the programs that an arm was paid by: the run's, and those that repairs found."""
        repairs = (of_arm(arm, f"{REPAIR}-{number}/{PROGRAM}") for number in range(1, MAX_REPAIRS + 1))
        found = (self._read(name) for name in (PROGRAM, *(name for name in repairs if self.files.holds(name))))
        return {program.id: program for program in found if program}

    def program_of(self, arm: str) -> RewardProgram | None:
        """The program that paid an arm in the end, as its watch noted it; else the run's."""
        return self.programs(arm).get(summed(self.looks(arm)).get("program", "")) or self.program

    @cached_property
    def subtasks(self) -> tuple[str, ...]:
        """The names of the program's sub-tasks, in their order, whether or not it could be used."""
        program = self.reading(lambda: self.files.mapping(PROGRAM)) or {"subtasks": ()}
        return tuple(one["name"] for one in program["subtasks"])

    @cached_property
    def notes(self) -> Sequence[str]:
        """What the search said of the program that it found; nothing where the run has another one by now."""
        program = self.program.id if self.program else None
        return notes_on(program, self.synthesis, lambda: self._accepted)

    @property
    def _accepted(self) -> list[str]:
        """Ids of the programs of the search that the gate accepted."""
        return [one.program.id for one in self.candidates if one.program and one.accepted and one.name[:1].isdigit()]

    @cached_property
    def candidates(self) -> list[Candidate]:
        """All answers in the order in which they came."""
        names = self.reading(lambda: self.files.names(CANDIDATES)) or []
        return [self._candidate(name) for name in names if name.endswith(".json")]

    def curve(self, arm: str) -> Sequence[Record]:
        """The points of an arm's learning curve."""
        return self._read(of_arm(arm, CURVE)) or []

    def live(self, arm: str) -> Record:
        """How far the training of an arm is, after its last iteration; by the names of a point of the curve."""
        live = self._mapping(of_arm(arm, LIVE))
        return {**live, "reward": live["counts"]} if live else {}

    def looks(self, arm: str) -> Sequence[Record]:
        """What the watch over an arm saw, look by look."""
        return self._read(of_arm(arm, WATCH)) or []

    def alarmed(self, arm: str) -> Sequence[Trajectory]:
        """The episodes for which the watch over an arm raised its newest alarm."""
        return self.reading(lambda: _all(self.files.store(of_arm(arm, WATCHED)))) or []

    def subject(self, arm: str) -> Record:
        """What an arm's checkpoints are a training of."""
        return self._mapping(of_arm(arm, SUBJECT))

    def evaluation(self, arm: str) -> Record:
        """The final evaluation of an arm: ``greedy`` and perhaps ``sampled``."""
        arms = as_record(as_record(self.result.get("evaluation")).get("arms"))
        return as_record(arms.get(arm))

    def pairs(self) -> list[tuple[Frame, Frame]]:
        """The initial and goal frames that the VLM was shown."""
        initial, goal = self._read(PAIRS) or ((), ())
        return list(zip(initial, goal, strict=False))

    def recorded(self, role: str, seed: int | None = None) -> Trajectory | None:
        """The episode of ``seed`` among those of "expert", "random" and so on, held-out ones included; without a seed
        the one of middling length."""
        found = self._episode(f"{TRAJECTORIES}/{role}", seed)
        if found is not None or seed is None:
            return found
        held_out = (self._episode(f"{TRAJECTORIES}/{split}-{role}", seed) for split in self._held_out)
        return next(filter(None, held_out), None)

    def judged_on(self, role: str) -> str:
        """The store of episodes of ``role`` that the verdict on the program is about, if it is known; else those of the
        search."""
        origin = self.program.provenance if self.program else None
        splits = [name for name in (origin.splits if origin else ()) if name in self._held_out]
        return f"{splits[-1]}-{role}" if splits else role

    def several(self, store: str, count: int) -> list[Trajectory]:
        """The first ``count`` episodes of a store, as "held-out-1-expert"; none if there is no such store."""
        found = self.reading(lambda: _several(self.files.store(f"{TRAJECTORIES}/{store}"), count))
        return found or []

    @cached_property
    def _held_out(self) -> list[str]:
        """The sets of held-out episodes that there are: held-out-1 and so on."""
        folders = (f"held-out-{number}" for number in range(1, MOST_SETS + 1))
        return [name for name in folders if self.files.holds(f"{TRAJECTORIES}/{name}-expert")]

    def played(self, arm: str) -> Trajectory | None:
        """The episode that the trained policy of an arm was recorded in."""
        return self._episode(of_arm(arm, EPISODE), None)

    def _episode(self, folder: str, seed: int | None) -> Trajectory | None:
        return self.reading(lambda: _episode(self.files.store(folder), seed))

    def _candidate(self, name: str) -> Candidate:
        data = self._mapping(name)
        program, rejected = None, str(data.get("rejected") or "")
        if data.get("program"):
            try:
                program = RewardProgram.from_json(json.dumps(data["program"]))
            except ProgramError as error:
                rejected = rejected or str(error)
        report = as_record(as_record(data.get("held_out")).get("report")) or as_record(data.get("report"))
        stem = name.rpartition("/")[2].removesuffix(".json")
        answer, proposer = (str(data.get(key) or "") for key in ("answer", "proposer"))
        return Candidate(stem, program, report, rejected, answer, as_record(data.get("spent")), proposer)

    def _read(self, name: str) -> Any:
        if name not in self._held:
            self._held[name] = self.reading(lambda: self.files.read(name))
        return self._held[name]

    def _mapping(self, name: str) -> Record:
        return self._read(name) or {}


def _all(store: TrajectoryStore) -> list[Trajectory]:
    return store.read() if store.exists() else []


def _several(store: TrajectoryStore, count: int) -> list[Trajectory]:
    return [store[index] for index in range(min(count, len(store)))] if store.exists() else []


def _episode(store: TrajectoryStore, seed: int | None) -> Trajectory | None:
    if not store.exists():
        return None
    if seed is None:
        lengths = [length for part in store.manifest.parts for length in part.lengths]
        return store[int(np.argsort(lengths, kind="stable")[len(lengths) // 2])]
    seeds = store.endings("seed")
    return store[seeds.index(seed)] if seed in seeds else None


def as_record(value: Any) -> Record:
    """``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}
