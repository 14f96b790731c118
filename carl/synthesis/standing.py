"""How far a program got in a search: to compare plans, to pool, and to name the best that was found."""

from collections.abc import Sequence

from carl.synthesis.tried import Candidate
from carl.verification.report import Check, VerificationReport

HARDLY = 0.01
"""A first sub-task that fewer random episodes do is too weak to learn from: until a policy does it, which random play
has to, it pays no more than the environment does. Of 200 episodes that are one or none."""

Standing = tuple[bool, bool, int, float, int, float]
"""Larger is further: accepted, accepted on the episodes of the search, checks that passed, the share of sub-tasks
before the first that is to blame, and, negative, the checks that failed and the sum of their bounds."""


def standing(candidate: Candidate) -> Standing:
    """How far ``candidate`` got, by the report that decided last."""
    report = candidate.verdict
    return (
        candidate.accepted,
        candidate.report.accepted,
        sum(check.passed for check in report.checks),
        _leading(report, len(candidate.program.subtasks)),
        -len(report.failed),
        -sum(_bound(check) for check in report.failed),
    )


def furthest(candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate that got furthest, of equals the first; None if there are none."""
    return max(candidates, key=standing, default=None)


def to_blame(report: VerificationReport) -> int | None:
    """The first sub-task (from 0) that a failed check blames: later ones were judged on what it let through.

    None if no single sub-task is to blame.
    """
    return min((check.subtask for check in report.failed if check.subtask is not None), default=None)


def passed(candidate: Candidate) -> str:
    """How far a candidate got, in a sentence without its end."""
    count = len({check.name for check in candidate.verdict.checks if check.passed})
    where = "the episodes of the search" if candidate.held_out is None else "held-out episodes"
    return f"passed {count or 'no'} check{'' if count == 1 else 's'} on {where}"


def failures(candidate: Candidate) -> list[str]:
    """What a candidate failed, each failure once and on one line."""
    failed = (f"{check.name}: {' '.join(check.message.split())}" for check in candidate.verdict.failed)
    return list(dict.fromkeys(failed))


def shortfall(candidate: Candidate) -> str:
    """How far a candidate got and what it failed, in a sentence without its end."""
    report = candidate.verdict
    if not report.failed:
        return passed(candidate)
    first, *more = report.failed
    reason = first.message.splitlines()[0].rstrip(":")
    return f"{passed(candidate)}, and failed {first.name}: {reason}" + (f" (and {len(more)} more)" if more else "")


def weakness(report: VerificationReport) -> str:
    """That random play hardly ever earns anything by a program's first sub-task, in words; empty where it does.

    It does if it gets the sub-task done, or is paid in part. Empty also where random play was not looked at.
    """
    figures = {check.name: check.figures for check in report.checks}
    of_play, in_part = figures.get("random_completion", {}), figures.get("for_nothing_random", {}).get("shares")
    done, episodes = of_play.get("done_per_subtask"), of_play.get("episodes")
    if not (isinstance(done, list) and done and isinstance(episodes, int)) or done[0] >= HARDLY * episodes:
        return ""
    if isinstance(in_part, list) and in_part and in_part[0] > 0:
        return ""
    return (
        f"sub-task 1 gets done in {done[0]:.0f} of {episodes} episodes of random play: a policy that begins at random "
        "hardly ever earns anything; an easier first sub-task would help"
    )


def _leading(report: VerificationReport, subtasks: int) -> float:
    blamed = to_blame(report)
    return 1.0 if blamed is None else blamed / subtasks


def _bound(check: Check) -> float:
    bound = check.figures.get("bound")
    return float(bound) if isinstance(bound, int | float) else 1.0
