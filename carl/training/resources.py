"""Whether the cluster has room for the processes of a training, looked up before RLlib waits for it for ever."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from carl.cluster import grows
from carl.errors import ResourceError

_log = logging.getLogger(__name__)
_ray: Any = ray  # Ray leaves these untyped

RESOURCE_PATIENCE_S = 15.0
"""How long to wait for what others are about to give back, such as replicas that were just told to stop."""

GROWTH_PATIENCE_S = 900.0
"""How long to wait for an autoscaler's nodes: machines have to start, and images to be fetched."""

SMALLEST = 1e-4
"""Ray counts resources in these; what is left of a sum of fractions below it is rounding."""

Room = dict[str, float]
"""Resources by Ray's name for them, such as CPU and GPU."""


@dataclass(frozen=True)
class Need:
    """``count`` processes of one kind, each on one node: what one of them takes, and the settings that say so."""

    kind: str
    count: int
    each: Mapping[str, float]
    settings: str

    def __str__(self) -> str:
        plural = "s" if self.count != 1 else ""
        each = " each" if self.count != 1 else ""
        return f"{self.count} {self.kind}{plural} ({_told(self.each)}{each})"


def needs_of(config: AlgorithmConfig) -> list[Need]:
    """The processes that RLlib starts for ``config``."""
    rllib: Any = config
    gpus = rllib.num_gpus_per_learner
    cpus = rllib.num_cpus_per_learner
    aggregators = rllib.num_learners * rllib.num_aggregator_actors_per_learner
    needs = [
        Need(
            "env runner",
            rllib.num_env_runners,
            {"CPU": rllib.num_cpus_per_env_runner, "GPU": rllib.num_gpus_per_env_runner}
            | rllib.custom_resources_per_env_runner,
            "train.env_runners (0 samples in the driver), cpus_per_runner or gpus_per_runner",
        ),
        Need(
            "learner",
            rllib.num_learners,
            {"CPU": (0 if gpus else 1) if cpus == "auto" else cpus, "GPU": gpus}
            | (rllib.custom_resources_per_learner or {}),
            "train.learners (0 learns in the driver) or gpus_per_learner",
        ),
        Need("aggregator", aggregators, {"CPU": 1}, "learners.num_aggregator_actors_per_learner in train.rllib"),
    ]
    return [need for need in needs if need.count]


def check_resources(config: AlgorithmConfig, patience_s: float = RESOURCE_PATIENCE_S) -> None:
    """Raise ResourceError unless the nodes have room for ``config``'s processes, and have it free soon.

    Where the cluster has an autoscaler it is asked for what is missing, and waited for longer.
    """
    needs = needs_of(config)
    _check_driver(config)
    waits = bool(missing := _missing(needs, _nodes()))
    if waits:
        if not grows():
            raise ResourceError(f"{_asked(needs)}, and {missing}. Set {_settings(needs)}, or give the cluster more")
        _log.warning("%s. Waiting for the autoscaler, %g s at most", missing, GROWTH_PATIENCE_S)
        _request(needs)
    deadline = time.monotonic() + (GROWTH_PATIENCE_S if waits else patience_s)
    try:
        while missing := _missing(needs, _free()):
            if time.monotonic() > deadline:
                there = _told(_sum(_nodes()))
                raise ResourceError(
                    f"{_asked(needs)}, and of what the cluster has ({there}) too little is free: {missing}. "
                    f"Set {_settings(needs)}, or wait until others are done"
                )
            time.sleep(0.2)
    finally:
        if waits:
            _request([])


def _check_driver(config: AlgorithmConfig) -> None:
    """A learner in the driver uses the driver's own GPU, which Ray does not hand out."""
    import torch

    rllib: Any = config
    if not rllib.num_learners and rllib.num_gpus_per_learner and not torch.cuda.is_available():
        raise ResourceError(
            f"train.gpus_per_learner={rllib.num_gpus_per_learner:g} without train.learners learns in the driver, "
            "which sees no GPU: set train.learners=1, so that a node with a GPU learns"
        )


def _missing(needs: Sequence[Need], nodes: Iterable[Room]) -> str:
    """What there is no room for, in words; empty if all fits. The largest are placed first, each where least is left
    over, as scarce resources have it: a process that needs no GPU does not go to a node that has one, if it can.
    """
    rooms = [dict(node) for node in nodes]
    for need in sorted(needs, key=lambda need: (need.each.get("GPU", 0), need.each.get("CPU", 0)), reverse=True):
        for placed in range(need.count):
            fitting = [room for room in rooms if _fits(need.each, room)]
            if not fitting:
                rest = f"after {placed} of them " if placed else ""
                largest = "; ".join(sorted({_told(room, need.each) for room in rooms})) or "nothing"
                return f"{rest}no node has room for a further {need.kind} ({_told(need.each)}): nodes have {largest}"
            room = min(fitting, key=lambda room: (room.get("GPU", 0), room.get("CPU", 0)))
            for key, much in need.each.items():
                room[key] = room.get(key, 0) - much
    return ""


def _fits(each: Mapping[str, float], room: Room) -> bool:
    return all(room.get(key, 0) >= much - SMALLEST for key, much in each.items())


def _asked(needs: Sequence[Need]) -> str:
    total = _sum({key: need.count * much for key, much in need.each.items()} for need in needs)
    return f"{' and '.join(map(str, needs))} need {_told(total)}"


def _settings(needs: Sequence[Need]) -> str:
    return "; ".join(need.settings for need in needs)


def _told(room: Mapping[str, float], asked: Mapping[str, float] | None = None) -> str:
    """``2 CPUs, 1 GPU``; of ``room`` only what is ``asked`` for, and of anything only what is not 0."""
    keys = [key for key, much in asked.items() if much] if asked else [key for key, much in room.items() if much]
    return ", ".join(f"{room.get(key, 0):g} {key}{'' if room.get(key, 0) == 1 else 's'}" for key in keys) or "0 CPUs"


def _sum(rooms: Iterable[Mapping[str, float]]) -> Room:
    total: Room = {}
    for room in rooms:
        for key, much in room.items():
            if not key.startswith(("node:", "memory", "object_store_memory", "accelerator_type:")):
                total[key] = total.get(key, 0.0) + much
    return total


def _nodes() -> list[Room]:
    """What each node has in all."""
    return [node["Resources"] for node in _ray.nodes() if node["Alive"]]


def _free() -> list[Room]:
    """What each node has free."""
    return list(_ray._private.state.available_resources_per_node().values())


def _request(needs: Sequence[Need]) -> None:
    """Ask the autoscaler for nodes on which ``needs`` have room; an empty list takes back what was asked."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[dict(need.each) for need in needs for _ in range(need.count)])
