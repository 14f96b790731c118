"""The run report: one HTML file that needs nothing else, neither network nor scripts."""

import logging
from functools import cache
from pathlib import Path
from typing import Any

from carl.artefacts import REPORT, write_text
from carl.episodes.trajectory import Trajectory
from carl.errors import CarlError, ConfigError
from carl.program import RewardProgram
from carl.runs.files import Files
from carl.runs.reader import Notes, Run, as_record
from carl.runs.report.evidence import Tracer
from carl.runs.report.strips import Progress
from carl.runs.words import number

_log = logging.getLogger(__name__)


def build_report(run_dir: Path, tracer: Tracer | None = None) -> Path:
    """Write ``run_dir/report.html`` from the artefacts in ``run_dir`` and return its path.

    The report of a run that stopped early lists what is missing.

    Args:
        run_dir: the run directory.
        tracer: runs a program on an episode; by default verification's, in a box.

    Raises:
        ConfigError: there is no such directory, or it cannot be written to.
    """
    if not run_dir.is_dir():
        raise ConfigError(f"{run_dir} is not a run directory; give the one that `carl run` made")
    notes = Notes()
    run = Run(Files(run_dir), notes)
    page = _template().render(context(run, tracer or _boxed(run, notes), notes))
    for note in dict.fromkeys(notes):
        _log.warning("%s", note)
    path = run_dir / REPORT
    write_text(path, page)
    return path


def context(run: Run, tracer: Tracer, notes: Notes) -> dict[str, Any]:
    """Everything the template shows. Text is plain: the template escapes it. Reading ``run`` adds to ``notes``."""
    from carl.runs.report import evidence, learning, sections, watched, words
    from carl.runs.report.card import card
    from carl.runs.report.pictures import TONES

    reached, main = learning.outcomes(run), run.arms[0]
    reward = as_record(run.result.get("reward"))
    weight = number(reward.get("env_reward_weight")) or 0.0
    mixed = weight if reward.get("kind", main) == main else 0.0
    baselines = [one for arm, one in reached.items() if arm != main]
    shown: dict[str, Any] = {
        "run": run,
        "verdict": words.verdict(reached.get(main), baselines, mixed > 0),
        "scores": learning.scores(run),
        "missing": sections.missing(run),
        "programs": sections.programs(run),
        "vlm": sections.vlm(run),
        "program_id": run.program.id if run.program else str(run.result.get("program_id") or ""),
        "pairs": sections.pairs(run),
        "card": card(run, tracer),
        "asked": sections.asked(run),
        "cards": evidence.cards(run.program),
        "stopped": str(run.synthesis.get("stopped") or run.synthesis.get("reason") or ""),
        "ordered": run.program is None or run.program.ordered,
        "checks": evidence.checks(run.verification),
        "unjudged": evidence.unjudged(run.verification),
        "strips": evidence.strips(run, tracer),
        "rejected": evidence.rejected(run, tracer),
        "charts": learning.charts(run),
        "head_start": learning.head_start(run),
        "arms": learning.arms(run),
        "film": sections.film(run, tracer),
        "watched": watched.watched(run, tracer),
        "weight": mixed,
        "reason": str(reward.get("env_reward_reason") or ""),
        "provenance": sections.provenance(run),
        "stages": sections.stages(run),
        "versions": list(sections.flat(as_record(run.result.get("versions")))),
        "config": list(sections.flat(run.config)),
        "tones": len(TONES),
    }
    return shown | {"notes": list(dict.fromkeys([*sections.doubts(run), *sections.searched(run), *notes]))}


def _boxed(run: Run, notes: Notes) -> Tracer:
    """A tracer that runs programs as verification does; where that fails the report goes without."""

    def traced(program: RewardProgram, trajectory: Trajectory) -> Progress | None:
        from carl.sandbox.box import Limits
        from carl.verification import trace

        verify = as_record(run.config.get("verify"))
        limits = Limits(deadline_s=float(verify.get("deadline_s", 1.0)), memory_mb=int(verify.get("memory_mb", 1024)))
        try:
            return trace(program, trajectory, limits)
        except CarlError as error:
            notes.append(f"program {program.id} could not be run for the pictures: {error}")
            return None

    return traced


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from carl.runs.report.pictures import TONES

    loader = PackageLoader("carl.runs.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    tones = "\n".join(f".t{index} {{ --tone: rgb{tone}; --arm: rgb{tone}; }}" for index, tone in enumerate(TONES))
    style = loader.get_source(environment, "report.css")[0]
    environment.globals["style"] = Markup(f"{style}{tones}\n")
    return environment.get_template("report.html.j2")
