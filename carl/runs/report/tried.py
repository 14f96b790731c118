"""What was tried before the program, why it failed, the frames that decided, and what all of it took."""

from collections import Counter
from itertools import islice
from typing import NamedTuple

from carl.runs.reader import Candidate, Record, Run, as_record
from carl.runs.report import words
from carl.runs.report.doubts import said_of
from carl.runs.report.evidence import episode_of
from carl.runs.report.pictures import still
from carl.runs.words import number
from carl.synthesis.failures import FAILURES

REFUSED = 6
"""Frames shown that decided against a program."""

LINES = 12
"""Rows of what was tried."""


class Refusal(NamedTuple):
    """A frame that decided against a program: the picture, what was expected and got, and of which program."""

    picture: str
    caption: str
    candidate: str


class Tried(NamedTuple):
    """A reason for which programs or answers were rejected, how many were, and what was said of one."""

    reason: str
    times: int
    example: str


def refusals(run: Run) -> list[Refusal]:
    """Frames that decided against programs, those of the programs that came furthest first, one for each check."""
    furthest = sorted((one for one in run.candidates if not one.accepted), key=_reached, reverse=True)
    failed = ((one, check) for one in furthest for check in one.report.get("checks") or [] if not check.get("passed"))
    return list(islice(filter(None, (_refusal(run, *each) for each in failed)), REFUSED))


def _reached(candidate: Candidate) -> int:
    """How many checks a program passed."""
    return sum(bool(one.get("passed")) for one in candidate.report.get("checks") or [])


def _refusal(run: Run, candidate: Candidate, check: Record) -> Refusal | None:
    for frame in check.get("frames") or []:
        trajectory, step = episode_of(run, frame), number(frame.get("step"))
        if trajectory is not None and step is not None and 0 <= step <= len(trajectory):
            picture = still(trajectory.frames[int(step)])
            where = f"{trajectory.role} episode, seed {trajectory.seed}, step {int(step)}"
            expected, got = (words.figure(frame.get(key)) for key in ("expected", "got"))
            caption = f"{said_of(str(check.get('name')))}: expected {expected}, got {got} ({where})"
            return Refusal(picture, caption, candidate.name)
    return None


def tried(run: Run) -> list[Tried]:
    """Why programs and answers were rejected, the commonest reason first, at most ``LINES``."""
    reasons = [_reason(one) for one in run.candidates if not one.accepted]
    example = dict(reversed(reasons))
    counted = Counter(reason for reason, _ in reasons).most_common(LINES)
    return [Tried(reason, count, words.cut(example[reason], 300)) for reason, count in counted]


def _reason(candidate: Candidate) -> tuple[str, str]:
    """The words of failure for a candidate, and what was said of it."""
    failed = next((one for one in candidate.report.get("checks") or [] if not one.get("passed")), None)
    if failed is None:
        why = "no program" if candidate.program is None else "set aside"
        return why, candidate.rejected or "no reason was given"
    said = str(failed.get("message") or failed.get("evidence") or "")
    named = next((one for one in FAILURES if said.startswith(one)), said_of(str(failed.get("name"))))
    return named, said.removeprefix(f"{named}: ")


def notes(run: Run) -> list[str]:
    """What the search said of itself, and, where it found no program, which one got furthest."""
    best = as_record(run.synthesis.get("best"))
    said = list(run.notes)
    return [*said, f"The best, {best.get('file')}, {best.get('words')}."] if best else said


def cost(run: Run, report: Record) -> list[tuple[str, str]]:
    """What the program took to find and to judge, and what it takes to run."""
    spent = as_record(run.synthesis.get("spent")) or next((one.spent for one in run.candidates[::-1] if one.spent), {})
    tokens = sum(number(run.usage.get(key)) or 0.0 for key in ("prompt_tokens", "completion_tokens"))
    stages = [number(run.seconds.get(name)) for name in ("collect", "synthesize", "verify")]
    money, frame = number(spent.get("money")), number(_figures(report, "cost").get("ms_per_frame"))
    rows = [
        ("programs tried", _counted(run)),
        ("requests", words.count(number(spent.get("calls")) or number(run.usage.get("calls")) or 0)),
        ("tokens", words.count(number(spent.get("tokens")) or tokens)),
        ("money", f"{money:.4g}" if money else ""),
        ("to collect, search and verify", words.seconds(sum(filter(None, stages))) if any(stages) else ""),
        ("to judge a frame", f"{frame:.2g} ms" if frame is not None else ""),
    ]
    return [(name, value) for name, value in rows if value]


def _counted(run: Run) -> str:
    """How many programs were tried, and by whom they were proposed where several did."""
    by = Counter(one.proposer for one in run.candidates if one.program is not None)
    who = ", ".join(f"{count} {name}" for name, count in by.most_common() if name)
    return words.count(by.total()) + (f" ({who})" if len(by) > 1 and who else "")


def _figures(report: Record, check: str) -> Record:
    found: list[Record] = [one for one in report.get("checks") or [] if one.get("name") == check]
    return as_record(found[0].get("figures")) if found else {}
