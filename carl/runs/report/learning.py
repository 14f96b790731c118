"""How the arms learned and what they reached: curves, the comparison at the head, and the table of arms."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from carl.methods.arms import ARMS, arm_of
from carl.runs.reader import Record, Run, as_record
from carl.runs.report import words
from carl.runs.report.charts import Series, line_chart
from carl.runs.words import number

BEFORE_TRAINING = ("collect", "synthesize", "verify")
"""Stages that only the code reward needs; its curve over time starts after them."""

SOLVED = 0.95
"""Success rate that the table of arms calls reached."""


class Mode(NamedTuple):
    """What an arm reached acting greedily, or sampling its actions; ``headline`` is what the head reports first."""

    mode: str
    rate: str
    interval: str
    headline: bool


class ArmRow(NamedTuple):
    """One line of the table under the curves."""

    arm: str
    style: str
    name: str
    modes: Sequence[Mode]
    length: str
    env_steps: str
    reached: str


class Score(NamedTuple):
    """A bar of the comparison at the head: percentages of success, with the interval's ends, and how the policy acts
    ("sampled" or "greedy"; empty if that is not recorded)."""

    style: str
    name: str
    mode: str
    figure: str
    share: float
    low: float
    high: float


def style(arm: str) -> str:
    """The class that colours an arm on the page; arms of other methods have that of code."""
    built_in = {one.name for one in ARMS}
    return "arm-" + (arm.replace("+", "-") if arm in built_in else "code")


def charts(run: Run) -> list[tuple[str, Markup]]:
    """Success and return, over environment steps and over seconds, with their titles; none without points."""
    curves = {arm: points for arm in run.arms if (points := run.curve(arm))}
    head_start = _before_training(run)
    drawn = []
    for key, title, y_range in (("success_rate", "Success rate", (0.0, 1.0)), ("mean_return", "Mean return", None)):
        for over, label in (("env_steps", "environment steps"), ("seconds", "seconds")):
            series = [
                _series(arm, points, over, key, head_start if over == "seconds" and arm == run.arms[0] else 0.0)
                for arm, points in curves.items()
            ]
            name = f"{title} over {label}"
            chart = line_chart(name, label, series[::-1], y_range, percent=key == "success_rate")
            if chart:
                drawn.append((name, chart))
    return drawn


def _series(arm: str, points: Sequence[Record], over: str, key: str, offset: float) -> Series:
    kept: list[tuple[float, float]] = []
    band: list[tuple[float, float]] = []
    for point in points:
        x, y = number(point.get(over)), _measured(point, key)
        if x is not None and y is not None:
            kept.append((x + offset, y))
            band.extend(_interval(point) if key == "success_rate" else ())
    return Series(style(arm), arm_of(arm).words, kept, band)


def _measured(point: Record, key: str) -> float | None:
    """The figure of the point's own evaluation, over whole episodes; else that of the point itself."""
    found = number(as_record(point.get("evaluation")).get(key))
    return number(point.get(key)) if found is None else found


def _interval(point: Record) -> list[tuple[float, float]]:
    """The 95 % interval of a point's success rate, or nothing if its number of episodes is unknown."""
    found = words.rate(point.get("evaluation"))
    return [found.interval] if found else []


def _before_training(run: Run) -> float:
    taken = run.seconds
    return sum(number(taken.get(stage)) or 0.0 for stage in BEFORE_TRAINING)


def head_start(run: Run) -> str:
    """How long the code reward took to be made; empty if that is not recorded."""
    taken = _before_training(run)
    return words.seconds(taken) if taken else ""


def outcomes(run: Run) -> dict[str, words.Outcome]:
    """What each evaluated arm reached."""
    found = {arm: words.outcome(arm, run.evaluation(arm), _steps(run, arm)) for arm in run.arms}
    return {arm: one for arm, one in found.items() if one is not None}


def scores(run: Run) -> list[Score]:
    """The comparison of the evaluated arms."""
    return [
        Score(style(arm), arm_of(arm).words, mode, words.percent(rate.share), *_percentages(rate))
        for arm, one in outcomes(run).items()
        for mode, rate in {one.mode: one.rate, **one.others}.items()
    ]


def _percentages(rate: words.Rate) -> tuple[float, float, float]:
    low, high = rate.interval
    return round(100 * rate.share, 2), round(100 * low, 2), round(100 * high, 2)


def _steps(run: Run, arm: str) -> int | None:
    steps = number(run.evaluation(arm).get("env_steps"))
    if steps is None and arm == run.arms[0]:
        steps = number(run.result.get("env_steps"))
    curve = [number(point.get("env_steps")) for point in run.curve(arm)[-1:]]
    steps = steps if steps is not None or not curve else curve[0]
    return None if steps is None else int(steps)


def arms(run: Run) -> list[ArmRow]:
    """The table of arms: those that were evaluated or have a curve."""
    reached = outcomes(run)
    return [
        ArmRow(
            arm,
            style(arm),
            arm_of(arm).words,
            [_mode(run.evaluation(arm), mode) for mode in ("greedy", "sampled")],
            _length(run.evaluation(arm)),
            words.count(_steps(run, arm)),
            _reached(run.curve(arm)),
        )
        for arm in run.arms
        if arm in reached or run.curve(arm)
    ]


def _mode(evaluation: Record, mode: str) -> Mode:
    found = words.rate(evaluation.get(mode))
    headline = found is not None and words.headline(evaluation) == mode
    return Mode(mode, words.percent(found.share), found.range, headline) if found else Mode(mode, words.DASH, "", False)


def _length(evaluation: Record) -> str:
    shown = as_record(evaluation.get(words.headline(evaluation))) or evaluation
    length = number(shown.get("mean_length"))
    return words.DASH if length is None else f"{length:.1f}"


def _reached(curve: Sequence[Record]) -> str:
    for point in curve:
        if (number(point.get("success_rate")) or 0.0) >= SOLVED:
            return f"{words.count(point.get('env_steps'))} steps, {words.seconds(point.get('seconds'))}"
    return "not reached" if curve else words.DASH
