"""Rules about when a sub-task is done: every expert gets there, and nobody before its time."""

from collections.abc import Iterator, Sequence
from math import floor

from carl.statistics import exact_bound
from carl.verification.episode import Episode
from carl.verification.report import Check, Figure, FrameRef
from carl.verification.rule import Case, Evidence, Rule, deciding

EXPERTS = frozenset({Evidence.EXPERTS})

SLACK = 0.01
"""Share of an expert's steps that the program may be ahead of the task's end. An episode of a hundred physical steps
crosses its line within one; of discrete steps there are fewer."""

SLOWER, MOST_AHEAD = 3, 3
"""So many times as much ahead may it be in other play, and at most so many frames: a car that rolls up to its flag
slowly seems to be there, for a few pixels, two frames before it is."""


class ExpertsComplete(Rule):
    """Every expert episode completes every sub-task in order (the paper's 100 %)."""

    name = "experts_complete"
    needs = EXPERTS

    def judge(self, case: Case) -> list[Check]:
        """One failed check for every sub-task at which episodes end, with the best frame of each."""
        experts = case.experts
        completed = sum(episode.completed for episode in experts)
        bound = exact_bound(len(experts) - completed, len(experts))
        figures: dict[str, Figure] = {"completed": completed, "episodes": len(experts), "bound": bound}
        if not experts:
            return [self.failed("there are no expert episodes to judge by; collect some", figures)]
        failed = []
        for index in range(len(case.program.subtasks)):
            stuck = [episode for episode in experts if _stuck_at(episode) == index]
            if stuck:
                hold = case.program.subtasks[index].hold
                message = (
                    f"{case.named(index)} never gets done in {len(stuck)} of {len(experts)} expert episodes, "
                    "where the task is solved by the last frame"
                ) + (f"; it has to be shown done in {hold} frames in a row" if hold > 1 else "")
                refs = [_best_frame(episode, index) for episode in stuck]
                found: dict[str, Figure] = {"stuck": len(stuck), "bound": exact_bound(len(stuck), len(experts))}
                failed.append(self.failed(message, figures | found, index, refs))
        return failed or [self.passed(f"all {len(experts)} expert episodes complete every sub-task", figures)]


def _stuck_at(episode: Episode) -> int | None:
    """The first sub-task that is not done."""
    return next((index for index, step in enumerate(episode.done_at) if step < 0), None)


def _best_frame(episode: Episode, subtask: int) -> FrameRef:
    track = episode.tracks[subtask]
    best, at = track.best, track.best_at
    got = f"at best {best:.4g}" + (f", at frame {at}" if best > 0 else " throughout")
    return deciding(episode, episode.steps, subtask, "progress 1 by this last frame", got)


class AlreadyDone(Rule):
    """No sub-task is done at the frame where it becomes active.

    On expert episodes that holds for all sub-tasks. On random ones it holds for those that are active in the initial
    frame: random play may well do a later step before its turn (such as the second object first), which is not the
    program's fault.
    """

    name = "already_done"
    needs = EXPERTS
    decisive = True

    def judge(self, case: Case) -> list[Check]:
        """One failed check for every sub-task that was done too early."""
        episodes = len(case.experts) + len(case.randoms)
        failed = []
        for index in range(len(case.program.subtasks)):
            found = [*_done_at_once(case.experts, index), *_done_at_once(case.randoms, index, initially=True)]
            if found:
                message = (
                    f"{case.named(index)} is already done at the frame where it becomes active, in {len(found)} of "
                    f"{episodes} episodes; it has to be below 1 there, and 1 only once it is achieved"
                )
                failed.append(self.failed(message, _shared(len(found), episodes), index, found))
        praise = "no sub-task is done at the frame where it becomes active"
        return failed or [self.passed(praise, _shared(0, episodes))]


def _shared(found: int, episodes: int) -> dict[str, Figure]:
    return {"already_done": found, "episodes": episodes, "bound": exact_bound(found, episodes)}


def _done_at_once(episodes: Sequence[Episode], subtask: int, initially: bool = False) -> Iterator[FrameRef]:
    """Frames at which a sub-task is active for the first time, and done; ``initially``: initial frames alone."""
    for episode in episodes:
        step = episode.tracks[subtask].active_at
        if step == episode.tracks[subtask].first_at and (step == 0 or (step > 0 and not initially)):
            yield deciding(episode, step, subtask, _turn(step, subtask), "1")


def _turn(step: int, subtask: int) -> str:
    return "below 1 in the initial frame" if step == 0 else f"below 1 where sub-task {subtask} was just done"


class DoneWithTask(Rule):
    """On expert episodes the last sub-task is done when the task is solved, at the last frame, and not before."""

    name = "done_with_task"
    needs = EXPERTS

    def __init__(self, limit: float) -> None:
        self._limit = limit

    def judge(self, case: Case) -> list[Check]:
        """One check, with the share of experts that were rewarded too early."""
        early = [episode for episode in case.experts if _ahead(episode) > floor(SLACK * episode.steps)]
        count, total = len(early), len(case.experts)
        last = len(case.program.subtasks) - 1
        figures: dict[str, Figure] = {
            "early": count,
            "episodes": total,
            "bound": exact_bound(count, total),
            "limit": self._limit,
            "frames_early": max(map(_ahead, early), default=0),
        }
        if count <= self._limit * total:
            return [
                self.passed(
                    f"all sub-tasks are done when the task is solved, in {total - count} of {total} expert episodes",
                    figures,
                )
            ]
        message = (
            f"rewarded too early: {case.named(last)} is done before the task is solved, in {count} of {total} expert "
            "episodes. Show 1 only where nothing is left to do, or add the sub-task that is missing"
        )
        refs = [
            deciding(
                one,
                max(one.done_at),
                last,
                "below 1, as the task is not solved yet",
                f"1, {_ahead(one)} frames before the task is solved",
            )
            for one in early
        ]
        return [self.failed(message, figures, last, refs)]


def earned(episode: Episode) -> bool:
    """Whether it completed the program as it solved the task, within ``SLACK`` of its steps."""
    return episode.completed and episode.solved and _ahead(episode) <= floor(SLACK * episode.steps)


def _ahead(episode: Episode) -> int:
    """How many frames before its last one an episode completed the program; 0: not before."""
    return episode.steps - max(episode.done_at) if episode.completed else 0


class OnlySolved(Rule):
    """What completes the program has solved the task by then, whoever plays: at most ``limit`` (a share) has not.

    An episode that ends, solved or not, within ``SLOWER`` times ``SLACK`` of its steps is not counted: the program may
    be so much ahead.
    """

    def __init__(self, kind: Evidence, limit: float) -> None:
        self.name, self.needs = f"only_solved_{kind}", frozenset({kind})
        self._kind, self._limit = kind, limit

    def judge(self, case: Case) -> list[Check]:
        """One check, with the share of episodes that completed the program without solving the task."""
        episodes = case.episodes[self._kind]
        false = [episode for episode in episodes if _unsolved(episode)]
        count, total = len(false), len(episodes)
        figures: dict[str, Figure] = {
            "completed": sum(episode.completed for episode in episodes),
            "unsolved": count,
            "episodes": total,
            "bound": exact_bound(count, total),
            "limit": self._limit,
        }
        message = (
            f"{count} of {total} {self._kind} episodes complete every sub-task without solving the task, or before"
        )
        if count <= self._limit * total:
            return [self.passed(message, figures)]
        last = len(case.program.subtasks) - 1
        refs = [
            deciding(one, max(one.done_at), None, "not all done, as the task is not solved", "all done")
            for one in false
        ]
        message = f"rewarded too early: {message}; what {case.named(last)} shows is not what solves it"
        return [self.failed(message, figures, last, refs)]


def _unsolved(episode: Episode) -> bool:
    """Whether it completed the program, went on, and did not solve the task, or well after that."""
    slack = min(floor(SLOWER * SLACK * episode.steps), MOST_AHEAD)
    return episode.completed and _ahead(episode) >= (slack + 1 if episode.solved else slack)
