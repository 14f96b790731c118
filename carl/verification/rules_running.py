"""Rules about the code at work: it keeps to the policy, answers every frame, the same each time, and fast."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from math import floor

from carl.sandbox.policy import violations
from carl.sandbox.source import Violation
from carl.verification.episode import Episode, Moment
from carl.verification.report import Check, Figure, FrameRef
from carl.verification.rule import Case, Evidence, Rule, deciding

STEPS = 2
"""Steps of the environment, its picture included, that a judgement may take as long as."""

UNSTABLE = 0.02
"""Share of varied frames that may be judged otherwise."""


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

    needs = frozenset({Evidence.EXPERTS})
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
            if len(found) > self.allowed(looked_at):
                message = f"{case.named(index)} {self.complaint}, at {len(found)} of {looked_at} frames"
                failed.append(self.failed(message, {"frames": looked_at, self.name: len(found)}, index, found))
        return failed or [self.passed(self.praise, {"frames": looked_at, self.name: 0})]

    def allowed(self, looked_at: int) -> int:  # noqa: ARG002  the usual rule forgives nothing
        """How many such moments of a sub-task are forgiven."""
        return 0

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


class Stable(_ByMoment):
    """A frame that looks a little different (brighter, darker, shifted by a pixel, noisy) is judged the same way.

    That is: done or not, and partial progress within a tenth, in all but ``UNSTABLE`` of the frames.
    """

    name = "stable"
    varies = True
    expected = "as good as the same, whatever the light"
    complaint = "misread: it judges otherwise where the frame looks a little different"
    praise = "frames that look a little different are judged the same way"

    def moments(self, episode: Episode) -> Sequence[Moment]:
        """Where the look of the frame decided."""
        return episode.unstable

    def looked_at(self, episode: Episode) -> int:
        """The frames that were varied."""
        return episode.varied

    def allowed(self, looked_at: int) -> int:
        """A few of them: what is at a threshold may fall on either side."""
        return floor(UNSTABLE * looked_at)


class Cost(Rule):
    """A judgement takes at most ``limit_s`` seconds, or as long as ``STEPS`` steps of the environment if that is more.

    What counts is the processor time of the process that runs the program, in the batch of episodes where it was least:
    other processes add little to that, and hardly in all batches. A step is measured in wall-clock time: on a busy
    machine the limit is larger, never smaller.
    """

    name = "cost"
    needs = frozenset({Evidence.EXPERTS})

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s

    def judge(self, case: Case) -> list[Check]:
        """One failed check for every sub-task that is too slow."""
        costs = [self._cost(case, index) for index in range(len(case.program.subtasks))]
        step = case.step_seconds or 0.0
        limit = max(self._limit_s, STEPS * step)
        figures: dict[str, Figure] = {"limit_ms": 1000 * limit, "step_ms": 1000 * step}
        failed = [self._refused(case, index, cost, figures) for index, cost in enumerate(costs) if cost > limit]
        took = f"a judgement takes at most {1000 * max(costs):.3g} ms; {1000 * limit:.3g} ms may be taken"
        return failed or [self.passed(took, figures | {"ms_per_frame": 1000 * max(costs)})]

    def _cost(self, case: Case, index: int) -> float:
        return min((one.cost[index] for one in case.everything if one.cost and one.cost[index]), default=0.0)

    def _refused(self, case: Case, index: int, cost: float, figures: dict[str, Figure]) -> Check:
        message = (
            f"too slow: {case.named(index)} takes {1000 * cost:.3g} ms a frame; {figures['limit_ms']:.3g} ms may be "
            f"taken, and a step of the environment takes {figures['step_ms']:.3g} ms. Look at fewer pixels, at all of "
            "them at once"
        )
        return self.failed(message, figures | {"ms_per_frame": 1000 * cost}, index)
