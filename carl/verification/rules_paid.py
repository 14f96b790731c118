"""Rules about what is paid: not for anybody's play, nothing for nothing, and each sub-task for something of its own."""

from collections.abc import Iterator
from statistics import fmean

from carl.statistics import exact_bound, wilson_interval
from carl.verification.episode import Episode
from carl.verification.report import Check, Figure, FrameRef
from carl.verification.rule import Case, Evidence, Rule, deciding
from carl.verification.rules_done import earned
from carl.verification.rules_near import FEWEST, concordance, graded, least

EACH = 2.5
"""A sub-task may pay so many times as large a share of its own weight in part as all together may of the return."""

TELLS = 0.02
"""Least share of episodes that stop before, and after, a sub-task that is needed."""


class RandomCompletion(Rule):
    """At most ``limit`` (a share) of at least ``fewest`` random episodes complete every sub-task for nothing.

    Random play that solves the task has to complete a right program at that frame, which does not count against it.
    """

    name = "random_completion"
    needs = frozenset({Evidence.RANDOMS})

    def __init__(self, limit: float, fewest: int) -> None:
        self._limit, self._fewest = limit, fewest

    def judge(self, case: Case) -> list[Check]:
        """One check, with the share, its 95 % interval (Wilson 1927), and what it is at most at 95 % confidence."""
        randoms = case.randoms
        done = [episode for episode in randoms if episode.completed]
        unearned = [episode for episode in done if not earned(episode)]
        share = len(unearned) / len(randoms) if randoms else 0.0
        subtasks = range(len(case.program.subtasks))
        figures: dict[str, Figure] = {
            "share": share,
            "interval": list(wilson_interval(len(unearned), len(randoms))),
            "bound": exact_bound(len(unearned), len(randoms)),
            "limit": self._limit,
            "episodes": len(randoms),
            "solved": sum(episode.solved for episode in randoms),
            "completed": len(done),
            "done_per_subtask": [float(sum(one.done_at[index] >= 0 for one in randoms)) for index in subtasks],
        }
        message = f"{len(done)} of {len(randoms)} episodes of random play complete every sub-task"
        if len(unearned) < len(done):
            message += f", {len(done) - len(unearned)} of them as they solve the task, which counts as right"
        if len(randoms) < self._fewest:
            message += f"; {self._fewest} episodes are needed to judge by: collect more"
        else:
            message += f"; at most {self._limit:.0%} may"
            if share <= self._limit:
                return [self.passed(message, figures)]
            message += ", so the sub-tasks together are too easily fulfilled"
        return [self.failed(message, figures, None, [_completion(episode) for episode in unearned])]


def _completion(episode: Episode) -> FrameRef:
    return deciding(episode, max(episode.done_at), None, "not all sub-tasks done", "all done")


class ForNothing(Rule):
    """What play that aims at nothing earns in part, on sub-tasks that it never gets done, is at most ``limit``.

    It is the mean over episodes of one kind, as a share of the return, as a latch pays it: the best that was shown,
    and nothing is taken back. That progress tells who is nearer to its sub-task makes no difference to random play: it
    comes near by chance, and less of the same progress pays it less. A policy is on its way, and what tells who is
    nearer may pay it anything.
    """

    def __init__(self, kind: Evidence, limit: float) -> None:
        self.name, self.needs = f"for_nothing_{kind}", frozenset({Evidence.EXPERTS, kind})
        self._kind, self._limit = kind, limit

    def judge(self, case: Case) -> list[Check]:
        """One check for the whole, or a failed one for the sub-task that pays most.

        The ``bound`` is of the share of episodes that are ``paid`` anything so: no exact one is known of a mean.
        """
        paid = [self._paid(case, index) for index in range(len(case.program.subtasks))]
        total = fmean([sum(each) / case.program.max_return for each in zip(*paid, strict=True)])
        limit = 1.0 if self._kind is Evidence.POLICY and self._telling(case) else self._limit
        shares = [fmean(each) / one.weight for each, one in zip(paid, case.program.subtasks, strict=True)]
        figures: dict[str, Figure] = {
            "share": total,
            "limit": limit,
            "shares": shares,
            "limit_each": EACH * limit,
        }
        episodes, earning = len(case.episodes[self._kind]), sum(map(any, zip(*paid, strict=True)))
        figures |= {"paid": earning, "episodes": episodes, "bound": exact_bound(earning, episodes)}
        what = f"{total:.1%} of the return in part, on sub-tasks that {self._kind} play never gets done"
        worst = max(range(len(shares)), key=lambda index: fmean(paid[index]))
        if total <= limit and max(shares) <= EACH * limit:
            return [self.passed(f"{self._kind} play earns {what}, in {earning} of {episodes} episodes", figures)]
        within = min(limit / max(total, 1e-9), EACH * limit / max(*shares, 1e-9))
        message = (
            f"paid for nothing: {self._kind} play earns {what}, where {limit:.1%} may be; {case.named(worst)} "
            f"pays {shares[worst]:.1%} of its weight. Pay only for what brings it nearer to being done, and at most "
            f"{within:.2g} times as much, or nothing"
        )
        return [self.failed(message, figures, worst, [*self._frames(case, worst)])]

    def _paid(self, case: Case, index: int) -> list[float]:
        """What each episode earned in part from a sub-task that it never got done."""
        weight = case.program.subtasks[index].weight
        tracks = (episode.tracks[index] for episode in case.episodes[self._kind])
        return [0.0 if track.done else weight * track.part for track in tracks]

    def _telling(self, case: Case) -> bool:
        """Whether all partial progress tells who is nearer, in each kind of episodes with enough pairs to say so.

        Where none has, as where all experts go one way, half-trained play has still to be heard before it is called
        untold: the rule is applied anew then.
        """
        for index in range(len(case.program.subtasks)):
            if graded(case, index):
                found = {kind: concordance(played, index) for kind, played in case.episodes.items()}
                said = [one.share >= least(kind) for kind, one in found.items() if one.pairs >= FEWEST]
                if not all(said) or (not said and Evidence.MIXED in case.episodes):
                    return False
        return True

    def _frames(self, case: Case, index: int) -> Iterator[FrameRef]:
        """The frames that paid most."""
        found = [(one, one.tracks[index]) for one in case.episodes[self._kind] if not one.tracks[index].done]
        for episode, track in sorted(found, key=lambda pair: -pair[1].part):
            expected = f"little more than the {track.shown[0]:.4g} of frame {track.active_at}" if track.shown else ""
            if track.part > 0:
                yield deciding(episode, track.nearest_at, index, expected, f"{track.nearest:.4g}, and never done")


class Needed(Rule):
    """Every sub-task is needed, or is called an ornament. A check that passes in any case, and says which.

    Without the last one an expert would be done before the task is. Another one is needed if it tells episodes apart:
    some play gets it done and not the next one, which is paid by nothing else, and some does not get it done.
    """

    name = "needed"
    needs = frozenset({Evidence.EXPERTS, Evidence.RANDOMS})

    def judge(self, case: Case) -> list[Check]:
        """One check; its figures have the shares of episodes that stop after and before each sub-task, and the bounds
        of the smaller one."""
        last = len(case.program.subtasks) - 1
        stops = [self._stops(case, index) for index in range(last)]
        after = [after / here if here else 0.0 for after, _, here in stops]
        before = [before / here if here else 0.0 for _, before, here in stops]
        ornaments = [index for index in range(last) if min(after[index], before[index]) < TELLS]
        figures: dict[str, Figure] = {
            "ornaments": [float(index + 1) for index in ornaments],
            "stop_after": after,
            "stop_before": before,
            "bounds": [exact_bound(min(after, before), here) for after, before, here in stops],
            "least": TELLS,
            "experts_early_without_the_last": self._early(case),
        }
        if not ornaments:
            return [self.passed("every sub-task is needed: without it, some play would earn another share", figures)]
        named = "; ".join(
            f"{case.named(index)}: {after[index]:.1%} of the episodes stop after it, {before[index]:.1%} before it"
            for index in ornaments
        )
        return [self.passed(f"an ornament, without which next to nothing changes: {named}", figures)]

    def _stops(self, case: Case, index: int) -> tuple[int, int, int]:
        """How many episodes ended after this sub-task was done, and before, of how many that had its turn."""
        here = [one.tracks[index : index + 2] for one in case.everything if one.tracks[index].shown]
        after = sum(this.done and not following.done for this, following in here)
        return after, sum(not this.done for this, _ in here), len(here)

    def _early(self, case: Case) -> float:
        """The share of the experts that would be done too early without the last sub-task."""
        early = [0 <= max((track.done_at for track in one.tracks[:-1]), default=0) < one.steps for one in case.experts]
        return fmean(early) if early else 0.0
