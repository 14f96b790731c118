"""What is done about a program that is not to be trusted: it pays less, and another one is searched for."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from carl.artefacts import PROGRAM
from carl.config import VerifyConfig, WatchConfig
from carl.episodes.trajectory import Trajectory
from carl.errors import ProgramError, command
from carl.program import RewardProgram, approved
from carl.rewards.program import ProgramReward
from carl.rewards.source import RewardSource
from carl.rewards.weighted import Weighted
from carl.training.watched import MAX_REPAIRS
from carl.verification.rule import Evidence

WAITS = "waits for approval"
"""The state of a repair whose program pays once somebody approved it."""

WEIGHTS = (0.5, 0.25, 0.0)
"""What a program still pays after it was distrusted once, twice, and three times; the rest is the environment's own."""

_log = logging.getLogger(__name__)


class Repairs(Protocol):
    """Searches for other programs, one after the other, while the training goes on."""

    @property
    def running(self) -> bool:
        """Whether a search was begun whose result was not asked for."""

    def begin(self, films: Sequence[Trajectory]) -> int:
        """Begin a search with the policy's episodes as evidence; returns its number, from 1."""

    def result(self) -> tuple[RewardProgram | None, str] | None:
        """None while it goes on; then its program, or None and why there is none."""

    def folder(self, number: int) -> Path:
        """Where search ``number`` works, and leaves its program."""

    def close(self) -> None:
        """End a search that goes on; harmless when called twice."""


@dataclass(frozen=True)
class Watching:
    """What is watched.

    Attributes:
        folder: the training's, in which WATCH and WATCHED are kept; its name is the arm's.
        env_steps: the training's budget.
        env_weight: share of the environment's own reward that is mixed in anyway.
        longest: steps of the longest expert episode; None if there are none.
        settings, verify: the sections of the configuration.
        repairs: searches for other programs; None: there are none.
        recorded: the run's recorded episodes, which rules compare the policy's with.
    """

    folder: Path
    env_steps: int
    env_weight: float
    longest: int | None
    settings: WatchConfig
    verify: VerifyConfig
    repairs: Repairs | None = None
    recorded: Mapping[Evidence, Iterable[Trajectory]] = field(default_factory=dict)


class Waiting:
    """A program in a file that waits for somebody's approval."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen = path, 0

    def approved(self) -> RewardProgram | None:
        """The program there once somebody approved it as it is; read only where the file is another than before."""
        with suppress(OSError, ProgramError):  # deleted, or edited by hand into something else: nobody approved that
            if (changed := self._path.stat().st_mtime_ns) != self._seen:
                self._seen = changed
                program = RewardProgram.load(self._path)
                return program if program.approval else None
        return None


class Answers:
    """The answers to alarms in one training."""

    def __init__(self, watching: Watching) -> None:
        self._watching, self._arm = watching, watching.folder.name
        self._repairs = watching.repairs if watching.settings.repair else None
        self._last = 0
        self._waiting: Waiting | None = None

    def go_on(self, looks: Sequence[Mapping[str, Any]]) -> None:
        """After a stop, know of the searches in the records ``looks``, and wait again for an approval that was waited
        for."""
        repairs = [one["repair"] for one in looks if one.get("repair")]
        if self._repairs is None or not repairs:
            return
        self._last = int(repairs[-1]["number"])
        if repairs[-1]["state"] == WAITS:
            self._waiting = Waiting(self._repairs.folder(self._last) / PROGRAM)

    def lower(self, reward: ProgramReward, weight: float, env_steps: int) -> Weighted | None:
        """The program with less weight.

        None where the environment's own reward, if it is 1 for a success, is mixed in so that it outweighs all that the
        program pays: that is left to work until half of the budget is used.
        """
        outweighed = self._watching.env_weight >= reward.program.max_return
        if not self._watching.settings.anneal or (outweighed and env_steps < self._watching.env_steps / 2):
            return None
        lower = next(one for one in WEIGHTS if one < weight)
        _log.warning("%s: the program's weight is %g from now on, after %g", self._arm, lower, weight)
        return Weighted(reward, lower)

    def search(self, films: Sequence[Trajectory]) -> dict[str, Any] | None:
        """Begin a search for another program, unless one goes on or there were enough; returns its record."""
        if self._repairs is None or self._repairs.running or self._waiting or not films or self._last >= MAX_REPAIRS:
            return None
        self._last = self._repairs.begin(films)
        _log.warning("%s: another program is searched for while training goes on (repair %d)", self._arm, self._last)
        return {"number": self._last, "state": "begun"}

    def found(
        self, reward: ProgramReward, *, needed: bool = True
    ) -> tuple[ProgramReward | None, dict[str, Any]] | None:
        """The reward of the program that a search found, or None, and its record; None while nothing has ended.

        A program that is not ``needed``, as the policy solves the task by now, does not pay: what it shows would be
        news to the policy. One that somebody has to approve pays once that is done.
        """
        if self._waiting is not None:
            program = self._waiting.approved()
            return self._pays(program, reward, needed) if program else None
        result = self._repairs.result() if self._repairs else None
        if self._repairs is None or result is None:
            return None
        program, why = result
        if program is None or program.id == reward.program.id:
            why = why or "the search found the same program again"
            _log.warning("%s: repair %d found no other program: %s", self._arm, self._last, why)
            return None, self._record("nothing found", why=why)
        if not approved(program, self._watching.verify):
            return None, self._wait(program, self._repairs.folder(self._last))
        return self._pays(program, reward, needed)

    def _pays(
        self, program: RewardProgram, reward: ProgramReward, needed: bool
    ) -> tuple[ProgramReward | None, dict[str, Any]]:
        self._waiting = None
        if not needed:
            _log.warning("%s: repair %d found a program that is not needed any more", self._arm, self._last)
            return None, self._record("not needed any more", why=f"it found {program.id}")
        _log.warning("%s: repair %d found the program %s, which pays now", self._arm, self._last, program.id)
        return replace(reward, program=program), self._record("found", program=program.id)

    def _wait(self, program: RewardProgram, folder: Path) -> dict[str, Any]:
        """Have the program wait for somebody's approval; returns its record."""
        self._waiting = Waiting(folder / PROGRAM)
        why = (
            f"it found {program.id}; read it with {command('program show', folder)} and approve it with "
            f"{command('program approve', folder)}, and it pays from the next iteration on"
        )
        _log.warning("%s: repair %d waits for approval: %s", self._arm, self._last, why)
        return self._record(WAITS, why=why)

    def _record(self, state: str, **more: str) -> dict[str, Any]:
        return {"number": self._last, "state": state, **more}

    def close(self) -> None:
        """End what goes on."""
        if self._repairs:
            self._repairs.close()


def parts(source: RewardSource | None) -> tuple[ProgramReward | None, float]:
    """The program behind a source, None if there is none, and the weight that it pays with."""
    weight = source.weight if isinstance(source, Weighted) else 1.0
    source = source.source if isinstance(source, Weighted) else source
    return (source if isinstance(source, ProgramReward) else None), weight
