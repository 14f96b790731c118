"""When a reward is not to be trusted: rules over what a policy was paid, and whether it solved its task.

Every bound is exact (Clopper and Pearson 1934), one-sided, and holds with ``CONFIDENCE`` each time it is looked at, so
that a training with a hundred looks at a sound reward raises a false alarm less than once in ten.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from carl.program import DONE, RewardProgram
from carl.statistics import exact_bound
from carl.verification.episode import Episode
from carl.verification.report import Check, Figure, FrameRef
from carl.verification.rule import Case, Evidence, Rule, deciding
from carl.verification.rules_paid import ForNothing

if TYPE_CHECKING:
    from carl.training.evaluation import Outcome

CONFIDENCE = 0.999

MAX_UNSOLVED = 0.2
"""Largest share of the policy's episodes that may complete a program and leave the task unsolved."""

FULL, LOW = 0.9, 0.5
"""A return of at least ``FULL`` of its bound goes with a success rate of at least ``LOW``."""

SOME = 0.25
"""Part of a sub-task's weight that a filmed episode has to earn, without getting it done, to count as paid for nothing.
The gate's limit for what is no nearness is a fifth of that, in the mean of the episodes."""

PAID = 0.75
"""Progress of a sub-task that is not done, from which on more than half of the episodes should not stay."""

SETTLED = 0.05
"""By this share of its bound, at most, a return may be below what it was, to be called no lower."""

POINTS = 3
"""Points of the learning curve in a row over which something has to last."""


@dataclass(frozen=True)
class Point:
    """What the episodes of one point of the learning curve came to.

    Attributes:
        env_steps: environment steps before it.
        episodes, succeeded: how many there were, and how many solved the task.
        earned: mean return of the program alone over its bound.
        done: how many ended with each sub-task done.
        paid: how many ended with ``PAID`` or more, and less than done, of each sub-task.
    """

    env_steps: int
    episodes: int
    succeeded: int
    earned: float
    done: tuple[int, ...] = ()
    paid: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        env_steps: int,
        outcomes: "Sequence[Outcome]",
        program: RewardProgram,
        weight: float = 1.0,
        env_weight: float = 0.0,
    ) -> Self:
        """From at least one episode, which earned ``weight`` times what ``program`` paid and ``env_weight`` times the
        environment's own reward."""
        earned = [(outcome.ret - env_weight * outcome.env_ret) / weight if weight else 0.0 for outcome in outcomes]
        shown = [outcome.shown[: len(program.subtasks)] for outcome in outcomes if outcome.shown]
        return cls(
            env_steps=env_steps,
            episodes=len(outcomes),
            succeeded=sum(outcome.success for outcome in outcomes),
            earned=sum(earned) / len(earned) / program.max_return,
            done=tuple(sum(value >= DONE for value in column) for column in zip(*shown, strict=True)),
            paid=tuple(sum(PAID <= value < DONE for value in column) for column in zip(*shown, strict=True)),
        )


@dataclass(frozen=True)
class Alarm:
    """A reason not to trust the reward: its rule, and the figures in a sentence."""

    rule: str
    message: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def at_least(successes: int, trials: int) -> float:
    """The exact lower bound of a share; 0 without trials."""
    return 1 - exact_bound(trials - successes, trials, CONFIDENCE) if trials else 0.0


def at_most(successes: int, trials: int) -> float:
    """The exact upper bound of a share; 1 without trials."""
    return exact_bound(successes, trials, CONFIDENCE)


def alarms_of(points: Sequence[Point], program: RewardProgram) -> list[Alarm]:
    """What the learning curve under one reward says against it."""
    if not points:
        return []
    found = [paid_unsolved(points), success_fell(points), *paid_undone(points, program)]
    return [alarm for alarm in found if alarm]


def paid_unsolved(points: Sequence[Point]) -> Alarm | None:
    """The return is near its bound at ``POINTS`` points in a row, success is below ``LOW`` and does not rise."""
    last = points[-POINTS:]
    if len(last) < POINTS or last[-1].succeeded > last[0].succeeded:
        return None
    if any(point.earned < FULL or at_most(point.succeeded, point.episodes) >= LOW for point in last):
        return None
    now = last[-1]
    return Alarm(
        "paid_unsolved",
        f"the policy earns {now.earned:.0%} of all that the program pays, and {now.succeeded} of {now.episodes} "
        f"episodes solve the task, no more than {POINTS} points before",
    )


def success_fell(points: Sequence[Point]) -> Alarm | None:
    """Success is lower than at an earlier point, which the bounds of both prove, and the return is not."""
    now = points[-1]
    best = max(points, key=lambda point: at_least(point.succeeded, point.episodes))
    fell = at_least(best.succeeded, best.episodes) > at_most(now.succeeded, now.episodes)
    if not fell or now.earned < best.earned - SETTLED:
        return None
    return Alarm(
        "success_fell",
        f"{now.succeeded} of {now.episodes} episodes solve the task, and {best.succeeded} of {best.episodes} did after "
        f"{best.env_steps:,} steps, while the program pays {now.earned:.0%} of its bound after {best.earned:.0%}",
    )


def paid_undone(points: Sequence[Point], program: RewardProgram) -> list[Alarm]:
    """A sub-task is paid for by ``PAID`` and more, and not done, in most episodes of ``POINTS`` points in a row, and
    gets done no more often."""
    last = points[-POINTS:]
    if len(last) < POINTS:
        return []
    found = []
    for index in range(len(last[-1].paid)):
        stays = all(at_least(point.paid[index], point.episodes) > 0.5 for point in last)
        if stays and last[-1].done[index] <= last[0].done[index]:
            found.append(Alarm("paid_undone", _undone(last[-1], index, program)))
    return found


def _undone(point: Point, index: int, program: RewardProgram) -> str:
    return (
        f"sub-task {index + 1} ({program.subtasks[index].name!r}) pays {PAID:.0%} or more of its weight and is not "
        f"done in {point.paid[index]} of {point.episodes} episodes, at {POINTS} points in a row"
    )


def completions_unsolved(completed: int, succeeded: int) -> float:
    """The exact lower bound of the share of ``completed`` training episodes that did not succeed.

    Where success does not end an episode it is counted later than the completion, and the bound may be too high.
    """
    return at_least(max(0, completed - succeeded), completed)


class CompletedUnsolved(Rule):
    """Few of the policy's episodes complete the program and leave the task unsolved.

    The exact lower bound of their share is at most ``MAX_UNSOLVED``, or what is ``allowed`` where that is more; where
    there is such an episode, so is that of the completions of training episodes without a success. An episode that was
    cut before its end counts if ``grace`` steps were left to solve the task after the program was completed.
    """

    name = "completed_unsolved"
    needs = frozenset({Evidence.POLICY})
    until = f"only_solved_{Evidence.POLICY}"
    """The gate's rule on films by which a raised alarm is over once it passes: that few episodes prove nothing any more
    is not enough."""

    def __init__(self, grace: int, completed: int = 0, succeeded: int = 0, allowed: float = 0.0) -> None:
        self._grace, self._training, self._limit = grace, (completed, succeeded), max(MAX_UNSOLVED, allowed)

    def judge(self, case: Case) -> list[Check]:
        """One check, with how many episodes did each sub-task; the frames are those that completed the program."""
        episodes = case.episodes[Evidence.POLICY]
        unsolved = [episode for episode in episodes if self._leaves_unsolved(episode)]
        bound = at_least(len(unsolved), len(episodes))
        if unsolved:
            bound = max(bound, completions_unsolved(*self._training))
        figures: dict[str, Figure] = {
            "episodes": len(episodes),
            "solved": sum(episode.solved for episode in episodes),
            "completed": sum(episode.completed for episode in episodes),
            "completed_unsolved": len(unsolved),
            "completed_in_training": self._training[0],
            "succeeded_in_training": self._training[1],
            "bound": bound,
            "limit": self._limit,
            "done_per_subtask": [
                float(sum(episode.done_at[index] >= 0 for episode in episodes))
                for index in range(len(case.program.subtasks))
            ],
        }
        completed, succeeded = self._training
        message = (
            f"{len(unsolved)} of {len(episodes)} filmed episodes of the policy complete every sub-task and leave the "
            f"task unsolved; of training episodes {completed} completed and {succeeded} succeeded lately"
        )
        if bound <= self._limit:
            return [self.passed(message, figures)]
        return [self.failed(message, figures, None, [_completion(episode) for episode in unsolved])]

    def _leaves_unsolved(self, episode: Episode) -> bool:
        return episode.completed and not episode.solved and episode.steps - max(episode.done_at) >= self._grace


class PaidForNothing(ForNothing):
    """Few of the policy's episodes are paid in part for what does not tell who is nearer.

    That is the gate's rule about play that aims at nothing, which says of few episodes more than they prove: here the
    exact lower bound of the share of episodes that earned ``SOME`` of a sub-task without getting it done has to exceed
    ``MAX_UNSOLVED`` as well.
    """

    until = f"for_nothing_{Evidence.POLICY}"
    """As of CompletedUnsolved."""

    def __init__(self, limit: float) -> None:
        super().__init__(Evidence.POLICY, limit)
        self.name = "paid_for_nothing"

    def judge(self, case: Case) -> list[Check]:
        """One check, as of the gate's rule."""
        (check,) = super().judge(case)
        tracks = [] if check.passed else [one.tracks[check.subtask or 0] for one in case.episodes[Evidence.POLICY]]
        paid = sum(track.part >= SOME and not track.done for track in tracks)
        bound = at_least(paid, len(tracks))
        figures = check.figures | {"paid": paid, "bound": bound, "limit_of_bound": MAX_UNSOLVED}
        proven = not check.passed and bound > MAX_UNSOLVED
        message = check.message
        if not check.passed and not proven:
            message = f"{paid} of {len(tracks)} filmed episodes are paid for nothing"
        return [check.model_copy(update={"passed": not proven, "figures": figures, "message": message})]


def _completion(episode: Episode) -> FrameRef:
    return deciding(episode, max(episode.done_at), None, "the task solved once all sub-tasks are done", "not solved")
