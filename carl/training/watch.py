"""A teacher that watches what a program's reward makes of a policy, and takes its weight away where it misleads."""

import json
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from carl.artefacts import WATCH, WATCHED
from carl.cluster.metrics import record
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.program import RewardProgram
from carl.rewards.program import ProgramReward
from carl.rewards.source import RewardSource
from carl.training.alarms import (
    LOW,
    MAX_UNSOLVED,
    Alarm,
    CompletedUnsolved,
    PaidForNothing,
    Point,
    alarms_of,
    at_least,
    completions_unsolved,
)
from carl.training.answers import Answers, Watching, parts
from carl.training.curve import truncate
from carl.training.filmgate import FilmGate
from carl.training.teacher import Anew, Iteration
from carl.training.watched import looks
from carl.verification.report import Check
from carl.verification.rule import Evidence

WINDOW = 10
"""Iterations over which completions and successes of training episodes are compared."""

SOON = 1
"""Iterations after which a suspicion that was not confirmed is looked at again; then twice as many, and so on."""

EARLY = 4
"""The first film without a suspicion comes after this part of ``watch.every`` iterations, the next after twice as many,
and so on up to ``watch.every``: what misleads does so from the beginning."""

LONGER = 4
"""Filmed episodes are cut at this many times the longest expert episode, or at that itself where none was completed or
solved lately: then what is paid on the way is looked at."""

_log = logging.getLogger(__name__)


class Watch:
    """A Teacher. It looks at a training in three ways, the cheap ones first:

    - After every iteration, at what was counted of training episodes. A sound program is completed where its task is
      solved: if more episodes completed it than succeeded, beyond chance, the policy is filmed.
    - At every point of the learning curve, at return and success (``carl.training.alarms``).
    - At such a suspicion, and every ``watch.every`` iterations: ``watch.episodes`` episodes of the policy are filmed,
      and judged by the gate's rules beside recorded experts. Only this raises the alarms that the program is completed
      and its task is not solved, or that it pays for nothing; what else fails there is warned of and kept.

    Alarms are warnings in the log, metrics, and records in WATCH; the episodes of the newest one are in WATCHED. With
    ``watch.anneal`` the program's weight falls at every look at which an alarm stands; with ``watch.repair`` another
    program is searched for meanwhile, and pays as soon as it is found.
    """

    def __init__(self, watching: Watching) -> None:
        self._watching, self._settings, self._answers = watching, watching.settings, Answers(watching)
        self._gate = FilmGate(watching.recorded, watching.verify)
        self._arm, self._path = watching.folder.name, watching.folder / WATCH
        self._began = False
        self._program = ""
        self._point = self._filmed_at = 0
        self._forget()

    def _forget(self) -> None:
        """Begin with another program."""
        self._points: list[Point] = []
        self._window: deque[tuple[int, int]] = deque(maxlen=WINDOW)
        self._patience, self._pace = SOON, -(-self._settings.every // EARLY)
        self._film: Sequence[Trajectory] = ()
        self._of_film: list[Alarm] = []
        self._warned: set[str] = set()
        self._standing: list[Alarm] = []

    def after(self, iteration: Iteration) -> RewardSource | Anew | None:
        """Look at one iteration; returns what pays less where the program that pays is not to be trusted."""
        reward, weight = parts(iteration.source)
        if reward is None or not self._settings.every:
            return None
        self._follow(iteration, reward.program.id)
        news = self._note(iteration, reward.program, weight)
        if ended := self._answers.found(reward, needed=not self._solves):
            repaired, repair = ended
            self._keep(iteration, reward, weight, () if repaired else None, source=repaired, repair=repair)
            return self._afresh(repaired) if repaired else None
        return self._watch(iteration, reward, weight, news) if weight else None

    def close(self) -> None:
        """End a search that goes on; harmless when called twice."""
        self._answers.close()

    def _watch(
        self, iteration: Iteration, reward: ProgramReward, weight: float, news: bool
    ) -> RewardSource | Anew | None:
        alarms = alarms_of(self._points, reward.program)
        checks: tuple[Check, ...] = ()
        seconds = 0.0
        if self._due(iteration.number, alarms):
            checks, seconds = self._look(iteration, reward.program)
        if not (news or checks):
            return None
        alarms = [*alarms, *self._of_film]
        self._raise(alarms, iteration)
        repair = self._answers.search(self._film) if alarms else None
        source = self._answers.lower(reward, weight, iteration.env_steps) if alarms else None
        self._keep(iteration, reward, weight, alarms, checks, seconds=seconds, source=source, repair=repair)
        return source if source is None or source.weight else self._afresh(source)

    def _follow(self, iteration: Iteration, program: str) -> None:
        """Go on after a stop, and begin anew with another program."""
        if not self._began:
            self._began, self._point = True, iteration.point
            kept = [one for one in looks(self._path) if one["iterations"] < iteration.number]
            truncate(self._path, len(kept))
            self._answers.go_on(kept)
        if program != self._program:
            self._program = program
            self._forget()

    def _note(self, iteration: Iteration, program: RewardProgram, weight: float) -> bool:
        """Note what this iteration brought; returns whether there is a new point of the learning curve."""
        completed = iteration.counts.get(f"fired:{len(program.subtasks)}", 0) if program.ordered else 0
        self._window.append((completed, iteration.succeeded))
        if iteration.point == self._point or not iteration.outcomes:
            return False
        self._point = iteration.point
        env_weight = self._watching.env_weight + 1 - weight
        self._points.append(Point.of(iteration.env_steps, iteration.outcomes, program, weight, env_weight))
        return True

    def _due(self, number: int, alarms: Sequence[Alarm]) -> bool:
        """Whether to film the policy: for a suspicion, for a new alarm of the curve, or since it is time."""
        since, every = number - self._filmed_at, self._settings.every
        allowed = self._watching.verify.unsolved(Evidence.POLICY)
        suspected = self._unsolved > max(MAX_UNSOLVED, allowed) and since >= min(self._patience, every)
        routine = since >= min(self._pace, -(-every // 2) if self._standing else every)
        return suspected or routine or bool({one.rule for one in alarms} - self._rules)

    @property
    def _counted(self) -> tuple[int, int]:
        """Training episodes that completed the program, and that succeeded, in the window."""
        return sum(one for one, _ in self._window), sum(one for _, one in self._window)

    @property
    def _unsolved(self) -> float:
        return completions_unsolved(*self._counted)

    @property
    def _rules(self) -> set[str]:
        return {alarm.rule for alarm in self._standing}

    def _look(self, iteration: Iteration, program: RewardProgram) -> tuple[tuple[Check, ...], float]:
        """Film the policy and have the gate judge the program on it; returns its checks, and the seconds it took."""
        started = time.monotonic()
        self._filmed_at = iteration.number
        longest, verify = self._watching.longest, self._watching.verify
        cut = (LONGER if any(self._counted) else 1) * longest if longest else None
        self._film = iteration.film(self._settings.episodes, cut)
        allowed = verify.unsolved(Evidence.POLICY)
        own = (CompletedUnsolved(longest or 0, *self._counted, allowed), PaidForNothing(verify.max_part))
        checks = self._gate.judge(program, self._film, own)
        failed = {check.name for check in checks if not check.passed}
        stand = {one.name for one in own if one.name in failed or (one.name in self._rules and one.until in failed)}
        self._patience, self._pace = 2 * self._patience, 2 * self._pace
        self._of_film = [Alarm(check.name, check.message) for check in checks if check.name in stand]
        self._warn([check for check in checks if check.name in failed - {rule.name for rule in own}])
        return tuple(checks), time.monotonic() - started

    def _warn(self, failed: Sequence[Check]) -> None:
        """Report which of the gate's rules fail on a film for the first time; whether that is an alarm, the watch's own
        rules decide, whose bounds are exact."""
        for check in failed:
            if check.name not in self._warned:
                self._warned.add(check.name)
                _log.warning("%s: on the policy's episodes %s", self._arm, check.message)

    def _raise(self, alarms: Sequence[Alarm], iteration: Iteration) -> None:
        """Report alarms that are new, and keep the newest episodes that were filmed while one stands."""
        new = [alarm for alarm in alarms if alarm.rule not in self._rules]
        for alarm in new:
            share = iteration.env_steps / self._watching.env_steps
            _log.warning(
                "%s: the reward is not to be trusted, after %d steps (%.0f %% of the budget): %s",
                *(self._arm, iteration.env_steps, 100 * share, alarm.message),
                extra={"arm": self._arm, "alarm": alarm.rule},
            )
        if self._standing and not alarms:
            _log.warning("%s: the alarm is over after %d steps", self._arm, iteration.env_steps)
        if alarms and self._filmed_at == iteration.number:
            TrajectoryStore(self._watching.folder / WATCHED).write(self._film, replace=True)
        self._standing = list(alarms)
        record("carl_watch_alarm", len(alarms), arm=self._arm)

    def _afresh(self, source: RewardSource) -> RewardSource | Anew:
        """``source``, under which the policy begins anew unless it solved half of the newest point's episodes."""
        solves = bool(self._points) and self._points[-1].succeeded >= LOW * self._points[-1].episodes
        return source if solves else Anew(source)

    @property
    def _solves(self) -> bool:
        """Whether the newest point of the curve proves that half of the episodes are solved."""
        return bool(self._points) and at_least(self._points[-1].succeeded, self._points[-1].episodes) >= LOW

    def _keep(
        self,
        iteration: Iteration,
        reward: ProgramReward,
        weight: float,
        alarms: Sequence[Alarm] | None = None,
        checks: Sequence[Check] = (),
        *,
        seconds: float = 0.0,
        source: RewardSource | None = None,
        repair: Mapping[str, Any] | None = None,
    ) -> None:
        """Write what was looked at, and what was published against it; without ``alarms`` those before still stand."""
        alarms = self._standing if alarms is None else alarms
        point = self._points[-1] if self._points else None
        content = {
            "iterations": iteration.number,
            "env_steps": iteration.env_steps,
            "share": iteration.env_steps / self._watching.env_steps,
            "program": reward.program.id,
            "weight": weight,
            "succeeded": point.succeeded if point else None,
            "episodes": point.episodes if point else None,
            "earned": point.earned if point else None,
            "completions_unsolved": self._unsolved,
            "checks": [check.model_dump(mode="json") for check in checks],
            "alarms": [alarm.to_dict() for alarm in alarms],
            "lowered": parts(source)[1] if source else None,
            "repair": repair,
            "seconds": round(seconds, 3),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(content) + "\n")
        record("carl_watch_seconds", seconds, arm=self._arm)
        record("carl_program_weight", weight, arm=self._arm)
