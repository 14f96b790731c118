"""Episodes of a run's task, which programs are judged on."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from carl.artefacts import MANIFEST, TRAJECTORIES, read_json, whole
from carl.config import CollectConfig
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import TaskError
from carl.methods.method import Work
from carl.seeding import Role, seeds_after, seeds_of
from carl.task import Task
from carl.verification.rule import Evidence

STORES = ("expert", "random")

Episodes = Mapping[Evidence, Iterable[Trajectory]]
"""Episodes by their kind. Each is read when it is looked at: together they may be larger than the memory."""


def recorded(work: Work[Any], plan: CollectConfig, fewest: int, held_out: int = 0) -> Episodes:
    """Episodes to search with, or the n-th held-out ones, n from 1; recorded unless they are there.

    Raises TaskError for what the task's code raises, and if it brings less than twice ``fewest`` demonstrations.
    """
    from carl.episodes.collect import collect, read_in_parallel

    seed = work.config.seed
    prefix = f"held-out-{held_out}-" if held_out else ""
    expert, random = (Role.HELD_OUT, Role.HELD_OUT) if held_out else (Role.EXPERT, Role.RANDOM)
    experts = TrajectoryStore(work.directory / f"{TRAJECTORIES}/{prefix}expert")
    if not experts.exists():
        count, skip = _share_of_experts(work.task, plan, fewest, held_out > 0)
        experts = collect(
            work.task,
            seeds_of(seed, expert, count, 2 * held_out),
            "expert",
            experts.uri,
            progress=work.progress,
            skip=skip,
            spare=seeds_after(seed, expert, count, 2 * held_out),
            max_failed=plan.max_failed,
        )
    randoms = TrajectoryStore(work.directory / f"{TRAJECTORIES}/{prefix}random")
    if not randoms.exists():
        longest = max(length for part in experts.manifest.parts for length in part.lengths)
        cut = plan.max_steps or math.ceil(plan.random_cut * longest)
        seeds = seeds_of(seed, random, plan.randoms, 2 * held_out + 1)
        randoms = collect(work.task, seeds, "random", randoms.uri, cut, progress=work.progress)
    return {Evidence.EXPERTS: read_in_parallel(experts), Evidence.RANDOMS: read_in_parallel(randoms)}


def _share_of_experts(task: Task, plan: CollectConfig, fewest: int, held_out: bool) -> tuple[int, int]:
    """How many expert episodes, and how many to pass over: recorded demonstrations are halved between both uses."""
    if task.demonstrations is None:
        return plan.experts, 0
    from carl.episodes.demonstrations import Demonstrations

    half = len(Demonstrations.of(task, plan.max_failed).usable) // 2
    if half < fewest:
        raise TaskError(
            f"task {task.name!r} has too few demonstrations: half of them judge what the VLM writes, and the "
            f"other half what was accepted; record at least {2 * fewest}, better {2 * plan.experts}"
        )
    return min(plan.experts, half), half if held_out else 0


def made(directory: Path, _: Any) -> str | None:
    """A digest of the episodes' lengths, since those of the same seeds are recorded again just so; None if a store is
    missing. Raises ConfigError for a damaged manifest."""
    manifests = [directory / TRAJECTORIES / store / MANIFEST for store in STORES]
    if not all(path.exists() for path in manifests):
        return None
    lengths = []
    for path in manifests:
        content = read_json(path, dict)
        with whole(str(path)):
            lengths.append([length for part in content["parts"] for length in part["lengths"]])
    return hashlib.sha256(json.dumps(lengths).encode()).hexdigest()[:16]
