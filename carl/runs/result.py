"""What a run found: the content of ``result.json``."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from carl.artefacts import SYNTHESIS, VERIFICATION, whole
from carl.config import Arm, RunConfig
from carl.episodes.trajectory import TrajectoryStore
from carl.errors import shown
from carl.rewards.mix import Mix
from carl.runs.directory import RunDirectory
from carl.task import Task

PACKAGES = (
    "code-as-reward",
    "ray",
    "torch",
    "transformers",
    "gymnasium",
    "minigrid",
    "numpy",
    "opencv-python-headless",
)


def assemble(task: Task, config: RunConfig, run_dir: RunDirectory, arms: Mapping[Arm, Any]) -> dict[str, Any]:
    """The content of ``result.json``.

    ``arms`` holds, for each arm, its final evaluation as ``carl.training.final.examine`` returns it.
    """
    main = arms[config.reward.source]
    synthesis = _read(run_dir, SYNTHESIS, usage=dict, candidates=int)
    verification = _read(run_dir, VERIFICATION, program_id=str)
    mix = Mix.of(config.reward)
    return {
        "task": task.name,
        "seed": config.seed,
        "algorithm": config.train.algorithm,
        "reward": {
            "kind": config.reward.source,
            "env_reward_weight": mix.env,
            "env_reward_reason": task.env_reward_reason if mix.source and mix.env else "",
            "progress_in_observation": mix.shows is not None,
        },
        "experts": experts(run_dir.path),
        "program_id": verification["program_id"] if verification else None,
        "vlm": synthesis["usage"] if synthesis else None,
        "candidates": synthesis["candidates"] if synthesis else 0,
        "verification": verification,
        "env_steps": main["env_steps"],
        "env_steps_per_s": main["env_steps_per_s"],
        "seconds": run_dir.seconds,
        "evaluation": main[main["headline"]] | {"mode": main["headline"], "arms": dict(arms)},
        "abstains": main["abstains"],
        "cut": main.get("cut", 0),
        "reward_counts": main["counts"],
        "rework_steps": main["rework_steps"],
        "versions": versions(),
    }


def experts(run_dir: Path) -> dict[str, int]:
    """Expert episodes that were recorded, to search with and held out, and those that failed and were passed over."""
    stores = [TrajectoryStore(path.parent) for path in run_dir.glob("trajectories/*expert/manifest.json")]
    return {
        "recorded": sum(len(store) for store in stores),
        "failed": sum(store.manifest.failed for store in stores),
    }


def _read(run_dir: RunDirectory, name: str, **kinds: type) -> dict[str, Any] | None:
    """The content of a file with values of these kinds; None if there is no such file. Raises ConfigError."""
    content: dict[str, Any] | None = run_dir.read(name)
    if content is None:
        return None
    with whole(str(run_dir / name)):
        for key, kind in kinds.items():
            if not isinstance(content[key], kind):
                raise TypeError(f"{key} is {shown(content[key])}")
    return content


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that shape a result."""
    found = {"python": python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # carl run from its source tree, say
            found[package] = "not installed"
    return found
