"""The gate: applies rules to a program, on more expensive evidence only after it has passed on the cheaper.

A program that the default rules accept separates expert from random episodes, gives the same values twice, and never
abstains.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from math import prod
from typing import Self

import numpy as np

from carl.config import VerifyConfig
from carl.console.progress import Progress, silent
from carl.episodes.missing import why_missing
from carl.episodes.trajectory import Trajectory
from carl.program import RewardProgram
from carl.sandbox.box import Box, Limits
from carl.verification.asking import BYTES_AT_ONCE, threads
from carl.verification.episode import Episode
from carl.verification.replay import AFTER, AT_ONCE, IN_MEMORY, Known, Replay
from carl.verification.report import Check, VerificationReport
from carl.verification.rule import Case, Evidence, Rule
from carl.verification.rules import default_rules
from carl.verification.soundness import Soundness

BOXES = 2
"""Processes that run a program."""

Episodes = Mapping[Evidence, Iterable[Trajectory]]
"""Recorded episodes by their kind; ``Missing`` ones say why there are none. Of each that is replayed a few MB of frames
are in memory, if a TrajectoryStore brings them."""


def verify(
    program: RewardProgram, episodes: Episodes, config: VerifyConfig | None = None, progress: Progress = silent
) -> VerificationReport:
    """Judge ``program`` by the default rules on recorded episodes; raises what ``Gate.judge`` does."""
    return Gate.of(config or VerifyConfig()).judge(program, episodes, progress)


@dataclass(frozen=True)
class Gate:
    """Rules in the order of their checks, and the limits of the processes that run a program."""

    rules: tuple[Rule, ...]
    limits: Limits
    config: VerifyConfig = field(default_factory=VerifyConfig)
    """What the episodes have to be good for."""

    @classmethod
    def of(cls, config: VerifyConfig) -> Self:
        """The default rules, with the thresholds and limits of ``config``."""
        return cls(default_rules(config), Limits(deadline_s=config.deadline_s, memory_mb=config.memory_mb), config)

    def judge(self, program: RewardProgram, episodes: Episodes, progress: Progress = silent) -> VerificationReport:
        """Apply the rules; what the program does wrong is in the report, and what is wrong with the episodes instead.

        Kinds of episodes are replayed cheapest first, those that no rule needs not at all; after a failure no further
        ones are. Raises BoxError if no process can be started, and StoreError for episodes that cannot be read.
        """
        start, soundness = time.monotonic(), Soundness.of(self.config)
        with ExitStack() as stack:
            varies = any(rule.varies for rule in self.rules)
            replays = _Replays(program, self.limits, progress, stack, varies, soundness)
            case, checks = self._decided(program, lambda kind: replays.of(kind, episodes.get(kind, ())), soundness)
        return VerificationReport(
            program_id=program.id,
            accepted=_passed(checks),
            checks=tuple(checks),
            episodes={kind.value: len(shown) for kind, shown in case.episodes.items()},
            frames=sum(episode.judged for episode in case.everything),
            seconds=time.monotonic() - start,
            unjudged=self._unjudged(case, episodes) if _passed(checks) else {},
        )

    def _decided(
        self, program: RewardProgram, replayed: Callable[[Evidence], Sequence[Episode]], soundness: Soundness
    ) -> tuple[Case, list[Check]]:
        """The checks on all that had to be replayed, of the episodes themselves first: only sound ones blame a program.

        On a further kind, the rules applied so far come first.
        """
        case = Case(program)
        of_the_code = checks = _applied([rule for rule in self.rules if not rule.needs], case)
        applied: list[Rule] = []
        for kind in self._kinds():
            if not _passed(checks):
                break
            found = replayed(kind)
            if not found and not kind.required:
                continue
            case = Case(program, {**case.episodes, kind: found}, soundness.step_seconds)
            evidence = soundness.judge()
            if not _passed(evidence):
                return case, evidence
            checks = evidence + of_the_code + _applied(applied, case)
            if _passed(checks):
                ready = [rule for rule in self.rules if rule.needs and rule.needs <= case.episodes.keys()]
                further = [rule for rule in ready if rule not in applied]
                checks += _applied(further, case)
                applied += further
        return case, checks

    def _unjudged(self, case: Case, episodes: Episodes) -> dict[str, str]:
        """The rules that were not applied to ``case`` for want of evidence, and why it is wanting; the policy's own is
        not, before there is a policy."""
        missing = {rule.name: sorted(rule.needs - case.episodes.keys() - {Evidence.POLICY}) for rule in self.rules}
        return {
            name: "; ".join(f"{kind} episodes: {why_missing(episodes.get(kind))}" for kind in kinds)
            for name, kinds in missing.items()
            if kinds
        }

    def _kinds(self) -> Iterator[Evidence]:
        """The kinds of evidence that some rule needs, cheapest first."""
        return (kind for kind in Evidence if any(kind in rule.needs for rule in self.rules))


def _applied(rules: Iterable[Rule], case: Case) -> list[Check]:
    """The checks of ``rules``, up to a decisive one that failed."""
    checks: list[Check] = []
    for rule in rules:
        checks += (found := rule.judge(case))
        if rule.decisive and not _passed(found):
            break
    return checks


def _passed(checks: Iterable[Check]) -> bool:
    return all(check.passed for check in checks)


@dataclass(frozen=True)
class _Replays:
    """A program at work on episodes, in two boxes that start while the first episodes are looked at.

    Each answers half of the questions, and some of the other's again.
    """

    program: RewardProgram
    limits: Limits
    progress: Progress
    stack: ExitStack
    varies: bool
    soundness: Soundness
    known: Known = field(default_factory=dict)
    starting: list[Future[Box]] = field(default_factory=list)

    def of(self, kind: Evidence, trajectories: Iterable[Trajectory]) -> list[Episode]:
        """What the program makes of episodes of one kind, up to the first batch that it abstains in."""
        total = float(len(trajectories)) if isinstance(trajectories, Sized) else None
        episodes: list[Episode] = []
        for batch in batches(trajectories):
            self._start()
            self.soundness.add(kind, batch)
            if not self.soundness.one_size:
                return episodes
            abstained = self._replay(batch, episodes, kind.solved)
            self.progress(f"judging {kind} episodes", len(episodes), total)
            if abstained:
                return episodes
        self.soundness.close(kind)
        return episodes

    def _replay(self, batch: Sequence[Trajectory], episodes: list[Episode], solved: bool) -> bool:
        """Replay a batch and add its episodes, without keeping their frames; returns whether the program abstained.

        Part of every batch is asked for again, in another process; of ``solved`` episodes only if all were completed.
        """
        replay = Replay(self.program, batch, None if solved else AFTER, self.known, self._pool)
        replay.run(self._boxes)
        if self.varies and not replay.abstained:
            replay.vary(self._boxes[0])
        if not replay.abstained and (replay.completed.all() or not solved):
            replay.repeat(self._boxes[::-1])
        episodes += replay.episodes()
        return replay.abstained

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return self.stack.enter_context(threads(BOXES))

    def _start(self) -> None:
        """Have the boxes start, unless they did; nobody waits for them here."""
        while len(self.starting) < BOXES:
            self.starting.append(future := self._pool.submit(Box, self.program, self.limits))
            self.stack.callback(_close, future)

    @cached_property
    def _boxes(self) -> list[Box]:
        return [future.result() for future in self.starting]


def _close(starting: Future[Box]) -> None:
    if not starting.cancel() and starting.exception() is None:
        starting.result().close()


def batches(trajectories: Iterable[Trajectory]) -> Iterator[list[Trajectory]]:
    """``AT_ONCE`` episodes at a time, in memory ``IN_MEMORY`` times as many; of large frames fewer."""
    source = iter(trajectories)
    for first in source:
        most = IN_MEMORY * AT_ONCE if isinstance(first.frames, np.ndarray) else AT_ONCE
        count = min(most, BYTES_AT_ONCE // prod(first.frames.shape[1:]))
        yield [first, *islice(source, max(0, count - 1))]
