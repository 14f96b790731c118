"""Files that stages leave behind, as small as they can be, for tests of what is done and what is not."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from carl.config import RunConfig
from carl.methods.arms import arms_of
from carl.program import RewardProgram, SubTask
from carl.training.checkpoint import Checkpoints, Progressed

PROGRAM = RewardProgram(subtasks=(SubTask(name="walk", code="def progress(frame, initial):\n    return 1.0"),))
MANIFEST = {"format": 1, "episodes": 2, "parts": [{"name": "part-0.parquet", "lengths": [3, 4]}]}


class Weights:
    """Stands in for RLlib's algorithm: a checkpoint of it is one file."""

    def save_to_path(self, path: Path) -> None:
        path.mkdir(parents=True)
        (path / "weights").write_text("0.5")


def write(directory: Path, name: str, content: Any) -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def leave(stage: str, config: RunConfig) -> None:
    """What ``stage`` leaves in the directory of ``config``."""
    directory = config.directory
    match stage:
        case "collect":
            for store in ("expert", "random"):
                write(directory, f"trajectories/{store}/manifest.json", MANIFEST)
        case "synthesize":
            write(directory, "program.json", PROGRAM.to_json())
        case "verify":
            write(directory, "verification.json", {"accepted": True, "program_id": PROGRAM.id})
        case "train":
            for arm in arms_of(config):
                leave_training(directory / "training" / arm.name)
        case "evaluate":
            write(directory, "result.json", {"task": config.task})
            for arm in arms_of(config):
                write(directory, f"training/{arm.name}/episode/manifest.json", MANIFEST)


def leave_training(folder: Path, steps: int = 5, points: int = 1) -> Path:
    """A checkpoint after ``steps``, with ``points`` on the curve; returns its folder."""
    progressed = Progressed(env_steps=steps, iterations=1, curve_points=points)
    write(folder, "curve.jsonl", "".join(json.dumps({"env_steps": step + 1}) + "\n" for step in range(points)))
    write(folder, "live.json", asdict(progressed))
    write(folder, "training.json", {"program": PROGRAM.id})
    return Checkpoints(folder / "checkpoints").save(Weights(), progressed)
