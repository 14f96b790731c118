"""The rules that every program is judged by unless others are given.

Expert and random episodes judge a program; oracle events play no part. What is asked for follows the paper (Code as
Reward, arXiv 2402.04764, section 3.3): all expert episodes complete the program, few random ones do.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from carl.config import VerifyConfig
from carl.sandbox.policy import violations
from carl.sandbox.source import Violation
from carl.statistics import exact_bound, wilson_interval
from carl.verification.replay import Episode, Moment
from carl.verification.report import Check, Figure, FrameRef
from carl.verification.rule import Case, Evidence, Rule, deciding

EXPERTS, RANDOMS = frozenset({Evidence.EXPERTS}), frozenset({Evidence.RANDOMS})


def default_rules(config: VerifyConfig) -> tuple[Rule, ...]:
    """The rules in the order of their checks."""
    return (
        StaticPolicy(),
        Abstains(),
        Deterministic(),
        ExpertsComplete(),
        AlreadyDone(),
        RandomCompletion(config.max_random_completion, config.min_randoms),
    )


class StaticPolicy(Rule):
    """Every sub-task's code keeps to what programs may contain."""

    name = "static_policy"
    decisive = True

    def judge(self, case: Case) -> list[Check]:
        """One failed check for every sub-task with a violation."""
        found = [violations(subtask.code) for subtask in case.program.subtasks]
        failed = [self._refused(case, index, listed) for index, listed in enumerate(found) if listed]
        return failed or [self.passed("the code contains nothing that is not allowed", {"violations": 0})]

    def _refused(self, case: Case, subtask: int, listed: Sequence[Violation]) -> Check:
        lines = "\n".join(f"- {violation}" for violation in listed)
        message = f"the code of {case.named(subtask)} is not allowed:\n{lines}"
        return self.failed(message, {"violations": len(listed)}, subtask)


class _ByMoment(Rule):
    """A rule that fails for every sub-task with at least one such moment."""

    needs = EXPERTS
    expected: str
    complaint: str
    praise: str

    @abstractmethod
    def moments(self, episode: Episode) -> Sequence[Moment]:
        """The moments that speak against the program."""

    @abstractmethod
    def looked_at(self, episode: Episode) -> int:
        """In how many frames they were looked for."""

    def judge(self, case: Case) -> list[Check]:
        """One failed check for every sub-task with such moments, which it counts."""
        looked_at = sum(self.looked_at(episode) for episode in case.everything)
        failed = []
        for index in range(len(case.program.subtasks)):
            found = [*self._found(case, index)]
            if found:
                message = f"{case.named(index)} {self.complaint}, at {len(found)} of {looked_at} frames"
                failed.append(self.failed(message, {"frames": looked_at, self.name: len(found)}, index, found))
        return failed or [self.passed(self.praise, {"frames": looked_at, self.name: 0})]

    def _found(self, case: Case, subtask: int) -> Iterator[FrameRef]:
        for episode in case.everything:
            for moment in self.moments(episode):
                if moment.subtask == subtask:
                    yield deciding(episode, moment.step, subtask, self.expected, moment.note)


class Abstains(_ByMoment):
    """Every judged frame gets a value.

    After an abstain the rest is not replayed, so completion is then not judged.
    """

    name = "abstains"
    decisive = True
    expected = "a number in [0, 1]"
    complaint = "gave no number in [0, 1]"
    praise = "every frame got a number in [0, 1]"

    def moments(self, episode: Episode) -> Sequence[Moment]:
        """Where the program gave no answer."""
        return episode.abstains

    def looked_at(self, episode: Episode) -> int:
        """All frames that it was asked about."""
        return episode.judged


class Deterministic(_ByMoment):
    """A second run, in another process and order, gives the same numbers to the last bit."""

    name = "deterministic"
    expected = "the same number in every run"
    complaint = "gave different numbers for the same two frames"
    praise = "a second run gave the same numbers"

    def moments(self, episode: Episode) -> Sequence[Moment]:
        """Where the second run gave another answer."""
        return episode.differing

    def looked_at(self, episode: Episode) -> int:
        """The frames that the second run was asked about."""
        return episode.repeated


class ExpertsComplete(Rule):
    """Every expert episode completes every sub-task in order (the paper's 100 %)."""

    name = "experts_complete"
    needs = EXPERTS

    def judge(self, case: Case) -> list[Check]:
        """One failed check for every sub-task at which episodes end, with the best frame of each."""
        experts = case.experts
        figures: dict[str, Figure] = {
            "completed": sum(episode.completed for episode in experts),
            "episodes": len(experts),
        }
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
                failed.append(self.failed(message, figures | {"stuck": len(stuck)}, index, refs))
        return failed or [self.passed(f"all {len(experts)} expert episodes complete every sub-task", figures)]


def _stuck_at(episode: Episode) -> int | None:
    """The first sub-task that is not done."""
    return next((index for index, step in enumerate(episode.done_at) if step < 0), None)


def _best_frame(episode: Episode, subtask: int) -> FrameRef:
    best, at = episode.best[subtask], episode.best_at[subtask]
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
                failed.append(self.failed(message, {"already_done": len(found), "episodes": episodes}, index, found))
        praise = "no sub-task is done at the frame where it becomes active"
        return failed or [self.passed(praise, {"already_done": 0, "episodes": episodes})]


def _done_at_once(episodes: Sequence[Episode], subtask: int, initially: bool = False) -> Iterator[FrameRef]:
    """Frames at which a sub-task is active for the first time, and done; ``initially``: initial frames alone."""
    for episode in episodes:
        step = episode.active_at[subtask]
        if step == episode.first_at[subtask] and (step == 0 or (step > 0 and not initially)):
            yield deciding(episode, step, subtask, _turn(step, subtask), "1")


def _turn(step: int, subtask: int) -> str:
    return "below 1 in the initial frame" if step == 0 else f"below 1 where sub-task {subtask} was just done"


class RandomCompletion(Rule):
    """At most ``limit`` (a share) of at least ``fewest`` random episodes complete every sub-task."""

    name = "random_completion"
    needs = RANDOMS

    def __init__(self, limit: float, fewest: int) -> None:
        self._limit, self._fewest = limit, fewest

    def judge(self, case: Case) -> list[Check]:
        """One check, with the share, its 95 % interval (Wilson 1927), and what it is at most at 95 % confidence."""
        randoms = case.randoms
        done = [episode for episode in randoms if episode.completed]
        share = len(done) / len(randoms) if randoms else 0.0
        subtasks = range(len(case.program.subtasks))
        figures: dict[str, Figure] = {
            "share": share,
            "interval": list(wilson_interval(len(done), len(randoms))),
            "bound": exact_bound(len(done), len(randoms)),
            "limit": self._limit,
            "episodes": len(randoms),
            "solved": sum(episode.solved for episode in randoms),
            "done_per_subtask": [float(sum(one.done_at[index] >= 0 for one in randoms)) for index in subtasks],
        }
        message = f"{len(done)} of {len(randoms)} episodes of random play complete every sub-task"
        if len(randoms) < self._fewest:
            message += f"; {self._fewest} episodes are needed to judge by: collect more"
        else:
            message += f"; at most {self._limit:.0%} may"
            if share <= self._limit:
                return [self.passed(message, figures)]
            message += ", so the sub-tasks together are too easily fulfilled"
        return [self.failed(message, figures, None, [_completion(episode) for episode in done])]


def _completion(episode: Episode) -> FrameRef:
    return deciding(episode, max(episode.done_at), None, "not all sub-tasks done", "all done")
