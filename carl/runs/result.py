"""What a run found: ``result.json``, and how a terminal shows it."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from carl.artefacts import SYNTHESIS, VERIFICATION, whole
from carl.config import Arm, RunConfig
from carl.console.plain import plain
from carl.episodes.trajectory import TrajectoryStore
from carl.errors import shown
from carl.rewards.mix import Mix
from carl.runs.directory import RunDirectory
from carl.task import LONGEST, Task
from carl.training.abstains import sentences

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

ARM_NAMES: Mapping[str, str] = {
    "code": "code reward",
    "sparse+progress": "sparse, same observation",
    "sparse": "sparse, no progress shown",
}


def assemble(task: Task, config: RunConfig, run_dir: RunDirectory, arms: Mapping[Arm, Any]) -> dict[str, Any]:
    """The content of ``result.json``.

    ``arms`` holds, for each arm, its final evaluation as ``carl.training.final.examine`` returns it.
    """
    main = arms[config.reward.source]
    synthesis = _read(run_dir, SYNTHESIS, usage=dict, candidates=int)
    verification = _read(run_dir, VERIFICATION, program_id=str)
    mix = Mix.of(config.reward, task)
    return {
        "task": task.name,
        "seed": config.seed,
        "algorithm": config.train.algorithm or task.algorithm,
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


def summary(result: Mapping[str, Any]) -> RenderableType:
    """The comparison of the arms, as a table for a terminal."""
    arms = result["evaluation"]["arms"]
    episodes = result["evaluation"]["episodes"]
    columns = ("trained on", "sampled", "greedy", "length", "env steps", "steps/s", "training")
    table = Table(*columns, box=None, header_style="bold")
    for name, arm in arms.items():
        table.add_row(
            ARM_NAMES[name],
            *(_rate(arm.get(mode)) for mode in ("sampled", "greedy")),
            f"{arm[arm['headline']]['mean_length']:.1f}",
            f"{arm['env_steps']:,}",
            f"{arm['env_steps_per_s']:,.0f}",
            f"{arm['seconds']:.0f} s",
        )
    head = plain(f"{result['task']}, seed {result['seed']}, {episodes} evaluation episodes for each figure")
    warnings = (Text(sentence, style="bold red") for sentence in sentences(arms, ARM_NAMES))
    lines = (_experts(result), plain(_vlm(result)), *_cut(arms), _seconds(result))
    return Group(Text(head, style="bold"), table, *warnings, *(Text(line) for line in lines if line))


def _rate(evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        return "not measured"
    low, high = evaluation["interval"]
    return f"{evaluation['success_rate']:.3f} [{low:.3f}, {high:.3f}]"


def _experts(result: Mapping[str, Any]) -> str:
    """Nothing where all of them succeeded."""
    counts = result.get("experts") or {}
    if not counts.get("failed"):
        return ""
    played = counts["recorded"] + counts["failed"]
    return f"The expert failed in {counts['failed']} of {played} episodes, which were passed over."


def _vlm(result: Mapping[str, Any]) -> str:
    vlm = result["vlm"]
    if not vlm:
        return "No VLM was asked."
    return (
        f"{vlm['model']}: {vlm['calls']} requests, {samples(vlm)} ({vlm['prompt_tokens']:,} tokens in, "
        f"{vlm['completion_tokens']:,} out, {vlm['seconds']:.1f} s); candidates tried: {result['candidates']}, "
        f"program {result['program_id']}."
    )


def _cut(arms: Mapping[str, Any]) -> list[str]:
    """A line if episodes had to be cut."""
    trained = sum(arm.get("cut", 0) for arm in arms.values())
    evaluated = sum((arm.get(mode) or {}).get("cut", 0) for arm in arms.values() for mode in ("sampled", "greedy"))
    if not trained + evaluated:
        return []
    return [
        f"{trained} episodes of training and {evaluated} of evaluation were cut after {LONGEST:,} steps: the "
        "environment sets no time limit. Give it one in the task's make(), such as gymnasium.wrappers.TimeLimit."
    ]


def samples(usage: Mapping[str, Any]) -> str:
    """How many answers came, and of how many where some did not."""
    came, wanted = usage["samples"], usage.get("wanted", 0)
    return f"{came} of {wanted} samples" if wanted > came else f"{came} samples"


def _seconds(result: Mapping[str, Any]) -> str:
    stages = result["seconds"]
    return f"{sum(stages.values()):.0f} s: " + ", ".join(f"{name} {took:.0f}" for name, took in stages.items())
