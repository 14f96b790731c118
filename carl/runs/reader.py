"""What a run directory holds, read with patience: a run may have stopped anywhere, and its report says where."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carl.artefacts import read_json, records, remedy, whole
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import CarlError, ConfigError, ProgramError, briefly
from carl.program import RewardProgram
from carl.task import Frame
from carl.tasks import get_task

ARMS = ("code", "sparse+progress", "sparse")
"""Rewards that a run may have trained on, as its folders under training/ are called."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """One answer of the VLM: a program and what verification said, or the reason why it never became a program."""

    name: str
    program: RewardProgram | None
    report: Record
    rejected: str
    answer: str

    @property
    def accepted(self) -> bool:
        return self.program is not None and bool(self.report.get("accepted"))


@dataclass
class Run:
    """The artefacts of one run directory. What cannot be read counts as missing and leaves a note.

    Attributes:
        directory: the run directory.
        notes: sentences about files that are there and cannot be used.
    """

    directory: Path
    notes: list[str] = field(default_factory=list)

    @cached_property
    def result(self) -> Record:
        return self._json("result.json")

    @cached_property
    def config(self) -> Record:
        return self._json("config.json")

    @cached_property
    def synthesis(self) -> Record:
        return self._json("synthesis.json")

    @cached_property
    def verification(self) -> Record:
        return self._json("verification.json")

    @cached_property
    def exchanges(self) -> list[Record]:
        return self._lines("synthesis/exchanges.jsonl")

    @cached_property
    def usage(self) -> Record:
        """What asking the VLM cost, as summed up, or else the sum over the recorded exchanges."""
        summed = as_record(self.result.get("vlm")) or as_record(self.synthesis.get("usage"))
        return summed or _total([as_record(one.get("usage")) for one in self.exchanges])

    @property
    def seconds(self) -> Record:
        """Wall-clock seconds of each stage."""
        stages = {name: as_record(stage).get("seconds") for name, stage in self._json("stages.json").items()}
        ended = {name: seconds for name, seconds in stages.items() if seconds is not None}
        return as_record(self.result.get("seconds")) or ended

    @property
    def task_name(self) -> str:
        return str(self.result.get("task") or self.config.get("task") or self.directory.name)

    @cached_property
    def description(self) -> str:
        """The task in words; empty if this installation does not know it."""
        try:
            return get_task(self.task_name).description
        except CarlError:
            return ""

    @cached_property
    def program(self) -> RewardProgram | None:
        path = self.directory / "program.json"
        try:
            return RewardProgram.load(path) if path.exists() else None
        except ProgramError as error:
            self.notes.append(str(error))
            return None

    @cached_property
    def candidates(self) -> list[Candidate]:
        """All answers in the order in which they came."""
        paths = sorted((self.directory / "candidates").glob("*.json"))
        return [self._candidate(path) for path in paths]

    def curve(self, arm: str) -> list[Record]:
        """The points of an arm's learning curve."""
        return self._lines(f"training/{arm}/curve.jsonl")

    def evaluation(self, arm: str) -> Record:
        """The final evaluation of an arm: ``greedy`` and perhaps ``sampled``."""
        arms = as_record(as_record(self.result.get("evaluation")).get("arms"))
        return as_record(arms.get(arm))

    def pairs(self) -> list[tuple[Frame, Frame]]:
        """The initial and goal frames that the VLM was shown."""
        path = self.directory / "synthesis" / "pairs.npz"
        if not path.exists():
            return []
        try:
            with np.load(path, allow_pickle=False) as arrays:
                initial, goal = pictures(arrays["initial"]), pictures(arrays["goal"])
        except Exception as error:  # a damaged archive raises whatever its zip or npy reader stumbles over
            self.notes.append(f"{path} cannot be read ({briefly(error)}): {remedy(str(path))}")
            return []
        return list(zip(initial, goal, strict=False))

    def trajectory(self, store: str, seed: int | None = None) -> Trajectory | None:
        """The episode of ``seed`` in a store of this run, or without a seed the one of middling length."""
        try:
            return self._trajectory(TrajectoryStore(self.directory / store), seed)
        except CarlError as error:
            self.notes.append(str(error))
            return None

    def _trajectory(self, store: TrajectoryStore, seed: int | None) -> Trajectory | None:
        if not store.exists():
            return None
        if seed is None:
            lengths = [length for part in store.manifest.parts for length in part.lengths]
            index = int(np.argsort(lengths, kind="stable")[len(lengths) // 2])
        else:
            seeds = store.endings("seed")
            if seed not in seeds:
                return None
            index = seeds.index(seed)
        return store[index]

    def _candidate(self, path: Path) -> Candidate:
        data = self._json(f"candidates/{path.name}")
        program, rejected = None, str(data.get("rejected") or "")
        if data.get("program"):
            try:
                program = RewardProgram.from_json(json.dumps(data["program"]))
            except ProgramError as error:
                rejected = rejected or str(error)
        return Candidate(path.stem, program, as_record(data.get("report")), rejected, str(data.get("answer") or ""))

    def _json(self, name: str) -> Record:
        path = self.directory / name
        if not path.exists():
            return {}
        try:
            return read_json(path, dict)
        except ConfigError as error:
            self.notes.append(str(error))
            return {}

    def _lines(self, name: str) -> list[Record]:
        """The records of a JSON-lines file; a last line that was cut short is left out."""
        path = self.directory / name
        if not path.exists():
            return []
        try:
            with whole(str(path)):
                text = path.read_text()
            return [*records(text, str(path))]
        except ConfigError as error:
            self.notes.append(str(error))
            return []


def as_record(value: Any) -> Record:
    """``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _total(records: Sequence[Record]) -> Record:
    names = {name for record in records for name in record}
    return {name: sum(_counted(record.get(name)) for record in records) for name in names}


def _counted(value: Any) -> float:
    return value if isinstance(value, int | float) else 0


def pictures(frames: NDArray[Any]) -> Frame:
    """``frames`` if they are ``uint8[P, H, W, 3]``; raises ValueError."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"frames are {frames.dtype}{list(frames.shape)}, not uint8[P, H, W, 3]")
    return frames
