"""What the watch over the training saw: how often sub-tasks got done, the alarms, and the episodes behind them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from carl.episodes.trajectory import Trajectory
from carl.methods.arms import arm_of
from carl.runs.reader import Record, Run, as_record
from carl.runs.report import words
from carl.runs.report.charts import Series, line_chart
from carl.runs.report.evidence import Tracer
from carl.runs.report.pictures import TONES
from carl.runs.report.strips import Strip, strip
from carl.runs.words import number
from carl.training.watched import sentences, summed

SHOWN = 3
"""Episodes of the newest alarm that are drawn."""


class Raised(NamedTuple):
    """An alarm: its rule in words, when it was raised, and why."""

    rule: str
    when: str
    message: str


class Watched(NamedTuple):
    """The section. ``verdict`` is one sentence; ``subtasks`` are the lines of ``chart``."""

    verdict: str
    notes: Sequence[str]
    raised: Sequence[Raised]
    chart: Markup
    subtasks: Sequence[str]
    strips: Sequence[Strip]


def watched(run: Run, tracer: Tracer) -> Watched | None:
    """The section of the run's own arm; None where nothing was watched."""
    arm = run.arms[0]
    looks, summary = run.looks(arm), summed(run.looks(arm))
    if not summary:
        return None
    raised = [
        Raised(
            str(one["rule"]).replace("_", " "),
            f"{words.count(one['env_steps'])} steps, {words.percent(float(one['share']))} of the budget",
            str(one["message"]),
        )
        for one in summary["raised"]
    ]
    films = f"The policy was filmed {summary['films']} times for the gate, in {words.seconds(summary['seconds'])}"
    verdict = f"{films}. {_state(summary)}"
    notes = list(sentences(arm_of(arm).words, summary))
    return Watched(verdict, notes, raised, _chart(run, arm), run.subtasks, list(_strips(run, looks, arm, tracer)))


def _state(summary: Record) -> str:
    if summary["standing"]:
        return "An alarm stands."
    return "Alarms were raised, and are over." if summary["raised"] else "No alarm was raised."


def _chart(run: Run, arm: str) -> Markup:
    """Share of training episodes in which each sub-task got done, between the points of the learning curve."""
    points = [{"env_steps": 0, "reward": {}}, *run.curve(arm)]
    series = []
    for index, name in enumerate(run.subtasks):
        drawn = []
        for before, after in pairwise(points):
            begun = _grown(before, after, "begun")
            if begun > 0:
                share = _grown(before, after, f"fired:{index + 1}") / begun
                drawn.append((number(after.get("env_steps")) or 0.0, min(1.0, share)))
        series.append(Series(f"t{index % len(TONES)}", name, drawn))
    return line_chart("Sub-tasks done over environment steps", "environment steps", series, (0.0, 1.0), percent=True)


def _grown(before: Record, after: Record, count: str) -> float:
    was, now = (number(as_record(point.get("reward")).get(count)) or 0.0 for point in (before, after))
    return now - was


def _strips(run: Run, looks: Sequence[Record], arm: str, tracer: Tracer) -> Iterator[Strip]:
    """The newest alarm's episodes, those first whose frames decided, which are marked."""
    alarm = next((look for look in reversed(looks) if look["alarms"] and look["checks"]), None)
    frames = _frames(alarm) if alarm else []
    seeds = {frame.get("seed") for frame in frames}
    films = sorted(run.alarmed(arm), key=lambda one: one.seed not in seeds)
    program = run.programs(arm).get(str(alarm["program"])) if alarm else None
    if program is None:
        return
    for film in films[:SHOWN]:
        marks = {int(one["step"]): f"expected {one['expected']}, got {one['got']}" for one in frames if _of(one, film)}
        yield strip(f"The policy, seed {film.seed}", program, film, tracer(program, film), marks)


def _frames(look: Record) -> list[Record]:
    return [frame for check in look["checks"] if not check["passed"] for frame in check["frames"]]


def _of(frame: Record, film: Trajectory) -> bool:
    return frame.get("seed") == film.seed and number(frame.get("step")) is not None
