"""What a sweep found: a row for each setting as JSON and CSV, and one page with the table and the curves."""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from markupsafe import Markup

from carl.artefacts import write_json, write_text
from carl.runs.files import Files
from carl.runs.grid import SweepConfig, Trial
from carl.runs.reader import Notes, Run, as_record
from carl.runs.report.charts import Point, Series, line_chart
from carl.runs.report.sections import doubts
from carl.runs.words import number, with_interval
from carl.statistics import t_interval

Row = dict[str, Any]

_log = logging.getLogger(__name__)

COMPARISON = "comparison"
"""Folder of the sweep's directory that these files go to."""

POINTS = 40
"""Points of a setting's curve; those of its runs were measured at steps of their own."""

COLOURS = ("#2459d3", "#c96a08", "#1a7f4b", "#c0352b", "#8a3ea8", "#737a84", "#0f8a9c", "#b0357f")

INTERVAL = "95 % interval of the mean over seeds, by Student's t"
BAND = "from the lowest seed to the highest"

STYLE = """
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; font: 16px system-ui, sans-serif; color: #1d2126; }
table { border-collapse: collapse; } th, td { text-align: left; padding: 0.4rem 1.2rem 0.4rem 0; }
th, small, .chart text { color: #5d6670; fill: #5d6670; font-weight: 500; } td { border-top: 1px solid #e3e4e0; }
td i { display: inline-block; width: 0.7rem; height: 0.7rem; margin-right: 0.5rem; background: var(--arm); }
.chart { width: 100%; } .chart text { font-size: 11.5px; } .chart .x { text-anchor: middle; }
.chart .y { text-anchor: end; } .chart .grid { stroke: #e3e4e0; } .chart circle { fill: var(--arm); }
.chart .line { fill: none; stroke: var(--arm); stroke-width: 2; } .chart .band { fill: var(--arm); opacity: 0.13; }
"""


def write_sweep(sweep: SweepConfig, failed: Mapping[Path, str]) -> list[Row]:
    """Write ``sweep.json``, ``sweep.csv`` and ``sweep.html`` to ``comparison/``; returns a row for each setting.

    ``failed`` holds, by run directory, what went wrong. Raises ConfigError where they cannot be written.
    """
    settings = [(name, list(trials)) for name, trials in groupby(sweep.trials(), lambda trial: trial.setting)]
    rows = [_row(name, trials, failed) for name, trials in settings]
    folder = sweep.path / COMPARISON
    write_json(folder / "sweep.json", {"interval": INTERVAL, "settings": rows})
    write_text(folder / "sweep.csv", _csv(rows))
    curves = [_series(index, name, trials) for index, (name, trials) in enumerate(settings)]
    write_text(folder / "sweep.html", _page(sweep, rows, curves))
    return rows


def _row(name: str, trials: Sequence[Trial], failed: Mapping[Path, str]) -> Row:
    """Mean success of a setting's finished runs, its interval, each seed's success, what went wrong, and which of the
    runs are not to be trusted and why."""
    rates: dict[int, float] = {}
    errors: dict[int, str] = {}
    doubtful: dict[int, str] = {}
    for _, config in trials:
        notes = Notes()
        run = Run(Files(config.directory), notes)
        rate = number(as_record(run.result.get("evaluation")).get("success_rate"))
        if rate is not None:
            rates[config.seed] = rate
        if reasons := doubts(run):
            doubtful[config.seed] = "; ".join(reasons)
        if rate is None or config.directory in failed:
            errors[config.seed] = failed.get(config.directory) or "; ".join(notes) or "not finished"
    found = list(rates.values())
    low, high = t_interval(found)
    return {
        "setting": name,
        "success_rate": round(fmean(found), 4) if found else None,
        "low": round(low, 4),
        "high": round(high, 4),
        "seeds": rates,
        "failed": errors,
        "doubtful": doubtful,
    }


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["setting", "success_rate", "low", "high", "seeds", "failed"])
    for row in rows:
        figures = [row[key] for key in ("setting", "success_rate", "low", "high")]
        table.writerow([*figures, len(row["seeds"]), "; ".join(wrong(row))])
    return text.getvalue()


def wrong(row: Row) -> list[str]:
    """What failed of a setting's runs, and what makes others doubtful, by seed."""
    return [f"seed {seed}: {text}" for key in ("failed", "doubtful") for seed, text in row[key].items()]


def _series(index: int, name: str, trials: Sequence[Trial]) -> Series:
    """Mean success over environment steps, and its band, as far as all runs that have a curve came."""
    curves = [points for _, config in trials if (points := _curve(config.directory, config.reward.method))]
    if not curves:
        return Series(f"s{index}", name, ())
    last = min(points[-1][0] for points in curves)
    first = min(last, max(points[0][0] for points in curves))
    steps = np.linspace(first, last, POINTS if last > first else 1)
    rates = np.array([np.interp(steps, *np.array(points).T) for points in curves])
    band = list(zip(rates.min(axis=0).tolist(), rates.max(axis=0).tolist(), strict=True))
    return Series(f"s{index}", name, list(zip(steps.tolist(), rates.mean(axis=0).tolist(), strict=True)), band)


def _curve(directory: Path, arm: str) -> list[Point]:
    notes = Notes()
    run = Run(Files(directory), notes)
    points = [(number(point.get("env_steps")), number(point.get("success_rate"))) for point in run.curve(arm)]
    for note in notes:
        _log.warning("%s", note)
    return [(steps, rate) for steps, rate in points if steps is not None and rate is not None]


def _page(sweep: SweepConfig, rows: Sequence[Row], curves: Sequence[Series]) -> str:
    colours = "".join(f".s{index} {{ --arm: {COLOURS[index % len(COLOURS)]}; }}" for index in range(len(rows)))
    lines = Markup().join(
        Markup('<tr><td class="s{}"><i></i>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>').format(
            index, row["setting"], rate_of(row), len(row["seeds"]), "; ".join(wrong(row))
        )
        for index, row in enumerate(rows)
    )
    chart = line_chart("Success over environment steps", "environment steps", curves, (0.0, 1.0), percent=True)
    return Markup(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Sweep of {task}</title><style>{style}</style>'
        "<h1>Sweep of {task}</h1><table><tr><th>setting</th><th>success</th><th>seeds</th><th>failed</th></tr>{lines}"
        "</table><p><small>Success of the final evaluation, sampled policy; in brackets the {interval}.</small></p>"
        "{chart}<p><small>Success on the curve's episodes: mean over seeds; the band is {band}.</small></p></html>\n"
    ).format(
        task=sweep.base.task, style=Markup(STYLE + colours), lines=lines, interval=INTERVAL, chart=chart, band=BAND
    )


def rate_of(row: Row) -> str:
    """``0.930 [0.871, 0.989]``."""
    if row["success_rate"] is None:
        return "-"
    return with_interval(row["success_rate"], row["low"], row["high"])
