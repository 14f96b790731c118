"""What verification saw: programs, checks, strips of frames, and the candidates that were rejected."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from carl.episodes.trajectory import Trajectory
from carl.program import RewardProgram
from carl.runs.reader import Candidate, Record, Run, as_record
from carl.runs.report import words
from carl.runs.report.gate import in_words, with_bound
from carl.runs.report.strips import Progress, Strip, strip
from carl.runs.words import number
from carl.statistics import left_open
from carl.verification.rule import Evidence

Tracer = Callable[[RewardProgram, Trajectory], Progress | None]
"""Runs a program on an episode of T steps: its latched progress ``float[T + 1, K]``, or None where it cannot."""


class SubTaskCard(NamedTuple):
    """A sub-task as the page shows it."""

    name: str
    description: str
    weight: float
    code: Markup


class Check(NamedTuple):
    """One check of a verification report."""

    name: str
    passed: bool
    figures: str
    evidence: str
    frames: Sequence[Record]


class Rejected(NamedTuple):
    """A rejected candidate: why, what it was, and what it made of the episode that decided."""

    name: str
    reasons: Sequence[str]
    checks: Sequence[Check]
    cards: Sequence[SubTaskCard]
    answer: str
    strip: Strip | None


def cards(program: RewardProgram | None) -> list[SubTaskCard]:
    """The sub-tasks with highlighted code."""
    shown = HtmlFormatter(nowrap=True)
    return [
        # pygments escapes what it highlights, so its output is markup
        SubTaskCard(one.name, one.description, one.weight, Markup(highlight(one.code.strip(), PythonLexer(), shown)))
        for one in (program.subtasks if program else ())
    ]


def checks(report: Record) -> list[Check]:
    """The checks of a verification report."""
    return [_check(one) for one in report.get("checks") or []]


def unjudged(report: Record) -> list[str]:
    """A sentence for each rule of a verification report that was not applied, and one for what it leaves open."""
    counts = {str(kind): int(number(count) or 0) for kind, count in as_record(report.get("episodes")).items()}
    return [
        *([f"{left_open(counts).capitalize()}."] if counts else []),
        *_unapplied(report),
    ]


def _unapplied(report: Record) -> list[str]:
    return [f"Not judged: {name.replace('_', ' ')} ({why})." for name, why in as_record(report.get("unjudged")).items()]


def _check(check: Record) -> Check:
    evidence = words.cut(str(check.get("evidence") or check.get("message") or ""))
    figures = in_words(str(check.get("name")), as_record(check.get("figures")), evidence)
    return Check(
        name=str(check.get("name", "check")).replace("_", " "),
        passed=bool(check.get("passed")),
        figures=with_bound(str(check.get("name")), as_record(check.get("figures")), evidence),
        evidence=evidence if evidence != figures else "",
        frames=check.get("frames") or [],
    )


def strips(run: Run, tracer: Tracer) -> list[Strip]:
    """What the program saw in an expert episode and in a random one."""
    tried = next((one for one in run.candidates[::-1] if one.program), None)
    program = run.program or (tried.program if tried else None)
    if program is None:
        return []
    by = f", as the rejected {tried.name} saw it" if tried and not run.program else ""
    drawn = []
    for store, title in (("expert", "An expert"), ("random", "Random play")):
        trajectory = run.recorded(store)
        if trajectory is not None:
            drawn.append(strip(title + by, program, trajectory, tracer(program, trajectory)))
    return drawn


def rejected(run: Run, tracer: Tracer) -> list[Rejected]:
    """All candidates that were not accepted. The first that has a deciding episode gets a strip of it."""
    found: list[Rejected] = []
    for candidate in run.candidates:
        if not candidate.accepted:
            drawn = None if any(one.strip for one in found) else _deciding(run, candidate, tracer)
            found.append(_rejected(candidate, drawn))
    return found


def _rejected(candidate: Candidate, drawn: Strip | None) -> Rejected:
    failed = [one for one in checks(candidate.report) if not one.passed]
    reasons = [one.evidence or f"{one.name}: {one.figures}" for one in failed]
    return Rejected(
        name=candidate.name,
        reasons=[words.cut(candidate.rejected), *reasons] if candidate.rejected else reasons or ["no reason was given"],
        checks=failed,
        cards=cards(candidate.program),
        answer="" if candidate.program else words.cut(candidate.answer),
        strip=drawn,
    )


def _deciding(run: Run, candidate: Candidate, tracer: Tracer) -> Strip | None:
    """The strip of the first episode that a failed check names, its deciding frames marked."""
    if candidate.program is None:
        return None
    frames = [frame for one in checks(candidate.report) if not one.passed for frame in one.frames]
    for frame in frames:
        trajectory = episode_of(run, frame)
        if trajectory is not None:
            episode = (frame.get("source"), frame.get("seed"))
            here = [one for one in frames if (one.get("source"), one.get("seed")) == episode]
            title = f"What decided against {candidate.name}: {trajectory.role} episode, seed {trajectory.seed}"
            marks = _marks(candidate.program, here)
            return strip(title, candidate.program, trajectory, tracer(candidate.program, trajectory), marks)
    return None


def episode_of(run: Run, frame: Record) -> Trajectory | None:
    """The episode that a reference to a frame names; None if it is not recorded here."""
    source, seed = frame.get("source"), number(frame.get("seed"))
    known = source in [kind.value for kind in Evidence] and seed is not None
    return run.recorded(str(source), int(seed or 0)) if known else None


def _marks(program: RewardProgram, frames: Sequence[Record]) -> dict[int, str]:
    marks: dict[int, str] = {}
    for frame in frames:
        subtask, step = frame.get("subtask"), number(frame.get("step"))
        if isinstance(subtask, int) and 0 <= subtask < len(program.subtasks):
            subtask = program.subtasks[subtask].name
        text = f"expected {words.figure(frame.get('expected'))}, got {words.figure(frame.get('got'))}"
        if step is not None:
            marks.setdefault(int(step), text if subtask is None else f"{subtask}: {text}")
    return marks
