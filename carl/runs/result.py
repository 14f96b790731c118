"""What a run found: the content of ``result.json``."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from carl.artefacts import MANIFEST, TRAJECTORIES
from carl.episodes.trajectory import TrajectoryStore
from carl.methods import Work, method_of
from carl.methods.arms import main_arm, mix_of
from carl.runs.files import Files
from carl.runs.reader import Run

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


def assemble(work: Work[Any], arms: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``result.json``; raises ConfigError for a damaged file.

    ``arms`` holds, by name, each arm's final evaluation as ``carl.training.final.examine`` returns it.
    """
    task, config, directory = work.task, work.config, work.directory
    method, arm = method_of(config.reward.method), main_arm(config)
    main, mix = arms[arm.name], mix_of(config, arm)
    return {
        "task": task.name,
        "seed": config.seed,
        "algorithm": config.train.algorithm,
        "reward": {
            "kind": method.name,
            "env_reward_weight": mix.env,
            "env_reward_reason": task.env_reward_reason if arm.pays and mix.env else "",
            "progress_in_observation": arm.shows,
        },
        "experts": experts(directory),
        **method.found(directory),
        "env_steps": main["env_steps"],
        "env_steps_per_s": main["env_steps_per_s"],
        "seconds": Run(Files(directory)).took,
        "evaluation": main[main["headline"]] | {"mode": main["headline"], "arms": dict(arms)},
        "abstains": main["abstains"],
        "cut": main.get("cut", 0),
        "reward_counts": main["counts"],
        "rework_steps": main["rework_steps"],
        "versions": versions(),
    }


def experts(run_dir: Path) -> dict[str, int]:
    """Expert episodes that were recorded, to search with and held out, and those that failed and were passed over."""
    stores = [TrajectoryStore(path.parent) for path in run_dir.glob(f"{TRAJECTORIES}/*expert/{MANIFEST}")]
    return {
        "recorded": sum(len(store) for store in stores),
        "failed": sum(store.manifest.failed for store in stores),
    }


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that shape a result."""
    found = {"python": python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # for example carl in its source tree
            found[package] = "not installed"
    return found
