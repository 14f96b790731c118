"""Verification: does a program tell expert from random episodes, always, the same way, and without failing?"""

import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack
from itertools import islice
from math import prod

import numpy as np
from numpy.typing import NDArray

from carl.config import VerifyConfig
from carl.console.progress import Progress, silent
from carl.episodes.trajectory import Trajectory
from carl.program import RewardProgram
from carl.sandbox.box import Box, Limits
from carl.verification import rules as checks
from carl.verification.replay import AT_ONCE, BYTES_AT_ONCE, Episode, Replay
from carl.verification.report import Check, VerificationReport


def verify(
    program: RewardProgram,
    experts: Iterable[Trajectory],
    randoms: Iterable[Trajectory],
    config: VerifyConfig | None = None,
    progress: Progress = silent,
) -> VerificationReport:
    """Judge ``program`` on expert and random episodes.

    Of each episode that is under way a few MB of frames are in memory, if a TrajectoryStore brings them. The cheapest
    checks come first, and a failure ends it: the static policy, then the expert episodes, then the
    random ones. What the program does wrong is in the report. Raises BoxError if no process can be started.
    """
    start = time.monotonic()
    gate = _Gate(program, config or VerifyConfig(), progress)
    accepted = gate.judge(experts, randoms)
    return VerificationReport(
        program_id=program.id,
        accepted=accepted,
        checks=tuple(gate.checks),
        experts=len(gate.experts),
        randoms=len(gate.randoms),
        frames=sum(episode.judged for episode in [*gate.experts, *gate.randoms]),
        seconds=time.monotonic() - start,
    )


def trace(program: RewardProgram, trajectory: Trajectory, limits: Limits | None = None) -> NDArray[np.float64]:
    """The latched progress of every sub-task after each frame of an episode, ``float64[T + 1, K]``.

    Frames on which a sub-task abstains leave its progress as it was. Raises ProgramError if the static policy refuses
    the program.
    """
    history = np.zeros((len(trajectory.frames), len(program.subtasks)))
    replay = Replay(program, [trajectory])

    def note(step: int) -> None:
        history[step] = replay.latch.best[0]

    with Box(program, limits) as box:
        replay.run(box, note, to_the_end=True)
    return history


class _Gate:
    """One verification under way; ``checks`` holds what has been decided."""

    def __init__(self, program: RewardProgram, config: VerifyConfig, progress: Progress) -> None:
        self._program, self._config, self._progress = program, config, progress
        self._limits = Limits(deadline_s=config.deadline_s, memory_mb=config.memory_mb)
        self._boxes: list[Box] = []
        self.checks: list[Check] = []
        self.experts: list[Episode] = []
        self.randoms: list[Episode] = []

    def judge(self, experts: Iterable[Trajectory], randoms: Iterable[Trajectory]) -> bool:
        """Whether the program is accepted."""
        static = checks.static_policy(self._program)
        self.checks = static
        if not _passed(static):
            return False
        with ExitStack() as stack:
            self.experts = self._replayed(experts, "expert episodes", stack, completed_only=True)
            self.checks = static + self._decided()
            if not _passed(self.checks):
                return False
            self.randoms = self._replayed(randoms, "random episodes", stack)
        self.checks = static + self._decided()
        if _passed(self.checks):
            self.checks += checks.random_completion(self._program, self.randoms, self._config)
        return _passed(self.checks)

    def _decided(self) -> list[Check]:
        """A program that abstains is not shown the rest, which then says nothing about what it completes."""
        program, experts, randoms = self._program, self.experts, self.randoms
        everywhere = [*experts, *randoms]
        answered = checks.abstains(program, everywhere)
        if not _passed(answered):
            return answered
        return [
            *answered,
            *checks.deterministic(program, everywhere),
            *checks.experts_complete(program, experts),
            *checks.not_already_done(program, experts, randoms),
        ]

    def _replayed(
        self, trajectories: Iterable[Trajectory], label: str, stack: ExitStack, completed_only: bool = False
    ) -> list[Episode]:
        """What the program makes of the episodes, up to the first batch with an abstain.

        Part of every batch is asked for again; with ``completed_only`` not if some episode was left incomplete, which
        rejects the program anyway.
        """
        total = float(len(trajectories)) if isinstance(trajectories, Sized) else None
        episodes: list[Episode] = []
        for batch in _batches(trajectories):
            abstained = self._replay(batch, episodes, stack, completed_only)
            self._progress(f"judging {label}", len(episodes), total)
            if abstained:
                break
        return episodes

    def _replay(
        self, batch: Sequence[Trajectory], episodes: list[Episode], stack: ExitStack, completed_only: bool
    ) -> bool:
        """Add what the program makes of a batch, whose frames are let go of with it; returns whether it abstained."""
        replay = Replay(self._program, batch)
        replay.run(self._box(0, stack))
        if not replay.abstained and (replay.completed.all() or not completed_only):
            replay.repeat(self._box(1, stack))
        episodes += replay.episodes()
        return replay.abstained

    def _box(self, index: int, stack: ExitStack) -> Box:
        """The first or the second box, started when it is first asked for."""
        while len(self._boxes) <= index:
            self._boxes.append(stack.enter_context(Box(self._program, self._limits)))
        return self._boxes[index]


def _passed(decided: list[Check]) -> bool:
    return all(check.passed for check in decided)


def _batches(trajectories: Iterable[Trajectory]) -> Iterator[list[Trajectory]]:
    """``AT_ONCE`` episodes at a time, of large frames fewer."""
    source = iter(trajectories)
    for first in source:
        count = min(AT_ONCE, BYTES_AT_ONCE // prod(first.frames.shape[1:]))
        yield [first, *islice(source, max(0, count - 1))]
