"""The learning curve: JSON lines, a point each."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carl.artefacts import whole, write_text
from carl.training.checkpoint import Progressed
from carl.training.evaluation import Evaluation


def point(
    progressed: Progressed, means: Mapping[str, float], training_success_rate: float | None, evaluation: Evaluation
) -> dict[str, Any]:
    """A point of the curve: what ``evaluation`` found, and what was counted up to there.

    ``means`` are those of the latest training episodes, ``training_success_rate`` is that since the last point.
    """
    return {
        "env_steps": progressed.env_steps,
        "seconds": round(progressed.seconds, 3),
        "episodes": progressed.episodes,
        "succeeded": progressed.succeeded,
        "mean_return": means.get("mean_return"),
        "mean_length": means.get("mean_length"),
        "training_success_rate": training_success_rate,
        "success_rate": evaluation.success_rate,
        "evaluation": evaluation.to_dict(),
        "iterations": progressed.iterations,
        "abstains": progressed.abstains,
        "abstaining": progressed.abstaining,
        "cut": progressed.cut,
        "reward": progressed.counts,
        "stale_steps": progressed.stale_steps,
        "rework_steps": progressed.rework_steps,
        "reward_version": progressed.reward_version,
    }


def append(curve: Path, added: Mapping[str, Any]) -> None:
    """Add a point to the file ``curve``."""
    with curve.open("a") as file:
        file.write(json.dumps(added) + "\n")


def truncate(curve: Path, points: int) -> None:
    """Keep the first ``points`` lines of the file ``curve``, which need not exist; raises ConfigError."""
    with whole(str(curve)):
        lines = curve.read_text().splitlines(keepends=True)[:points] if curve.exists() else []
    write_text(curve, "".join(lines))
