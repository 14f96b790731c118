"""Room on the cluster for the processes of a run, checked before they start: Ray would wait for it without end.

``room_for`` requests a placement group, which also makes an autoscaler add what is not free. RLlib and Serve start no
processes inside a group that a driver holds, so the group is removed before they start; until they run, other runs on
the cluster wait for their turn. Ray then places the processes one by one: very different sizes may block each other.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from carl.cluster.session import alone, grows, here
from carl.errors import ResourceError

_log = logging.getLogger(__name__)
_ray: Any = ray  # Ray leaves these untyped

RESOURCE_PATIENCE_S = 15.0
"""Seconds to wait for one placement group, and in all on a cluster of one's own: stopping replicas take a moment."""

GROWTH_PATIENCE_S = 900.0
"""Seconds to wait in all for an autoscaler's nodes and for other runs: machines have to start, arms to end."""

TURN_PATIENCE_S = 2 * GROWTH_PATIENCE_S
"""Seconds to wait while other runs start their processes."""

PAUSE_S = 1.0
"""Seconds for which a run that found no room leaves the turn to others, which try to take it every RETRY_S."""

RETRY_S = 0.2

SMALLEST = 1e-4
"""The smallest unit of a resource in Ray; a remainder below it is rounding of a sum of fractions."""

Room = dict[str, float]
"""Amounts by Ray's name of the resource, such as CPU and GPU."""


@dataclass(frozen=True)
class Need:
    """``count`` processes of one kind, each on one node: what one takes, and the settings that determine it."""

    kind: str
    count: int
    each: Mapping[str, float]
    settings: str

    def __str__(self) -> str:
        plural = "s" if self.count != 1 else ""
        each = " each" if self.count != 1 else ""
        return f"{self.count} {self.kind}{plural} ({_amounts(self.each)}{each})"


@contextmanager
def room_for(needs: Sequence[Need]) -> Iterator[None]:
    """Enter when the nodes have room for ``needs``; until the context ends, no other run of carl's takes it.

    Waits for busy resources: RESOURCE_PATIENCE_S on a Ray of one's own, GROWTH_PATIENCE_S on a cluster, where other
    runs get their turn in between. Raises ResourceError with what is missing.
    """
    needs = [need for need in needs if need.count and any(need.each.values())]
    if not needs:
        yield
        return
    if missing_of(needs, _nodes()) and not grows():
        raise ResourceError(_lack(needs))
    patience_s = RESOURCE_PATIENCE_S if alone() else GROWTH_PATIENCE_S
    began = time.monotonic()
    warned = False
    while True:
        with _turn():
            if _granted(needs):
                yield
                return
        if time.monotonic() > began + patience_s:
            raise ResourceError(_lack(needs))
        if not warned:
            _log.warning("too little is free for %s. Waiting, %g s at most", _asked(needs), patience_s)
            warned = True
        time.sleep(PAUSE_S)


@contextmanager
def _turn() -> Iterator[None]:
    """One run at a time on a cluster that others may share; raises ResourceError after TURN_PATIENCE_S."""
    if alone():
        yield
        return
    sign = _take_turn()
    try:
        yield
    finally:
        with suppress(Exception):  # where Ray is gone, so is the sign
            ray.kill(sign)


def _take_turn() -> Any:
    """A named actor, of which there can be one. It dies with this process, or with its node."""
    sign = _ray.remote(num_cpus=0)(_Sign).options(name="turn", namespace="carl", scheduling_strategy=here())
    began = time.monotonic()
    warned = False
    while True:
        try:
            return sign.remote()
        except ValueError as error:  # the name is taken
            if time.monotonic() > began + TURN_PATIENCE_S:
                raise ResourceError(
                    f"other runs have been getting their processes on this cluster for {TURN_PATIENCE_S:g} s: wait "
                    "until they have them, or stop the one that does not get them"
                ) from error
        if not warned:
            _log.warning("another run is getting its processes. Waiting for it, %g s at most", TURN_PATIENCE_S)
            warned = True
        time.sleep(RETRY_S)


class _Sign:
    """The actor whose existence marks that a run is starting its processes."""


def _granted(needs: Sequence[Need]) -> bool:
    """Whether all ``needs`` fit at one time into what is free, within RESOURCE_PATIENCE_S."""
    each = [{key: much for key, much in need.each.items() if much} for need in needs for _ in range(need.count)]
    group = placement_group(each)
    try:
        return bool(ray.wait([group.ready()], timeout=RESOURCE_PATIENCE_S)[0])
    finally:
        remove_placement_group(group)


def _asked(needs: Sequence[Need]) -> str:
    total = _amounts(_sum({key: need.count * much for key, much in need.each.items()} for need in needs))
    return f"{' and '.join(map(str, needs))}, {total} in all"


def _lack(needs: Sequence[Need]) -> str:
    """The message: what the cluster lacks, or has but not free, and the settings to change."""
    settings = "; ".join(need.settings for need in needs)
    asked = _asked(needs) + (f", and the autoscaler had {GROWTH_PATIENCE_S:g} s" if grows() else "")
    if missing := missing_of(needs, _nodes()):
        return f"{asked}: {missing}. Set {settings}, or give the cluster more"
    there, missing = _amounts(_sum(_nodes())), missing_of(needs, _free()) or "never all at one time"
    return (
        f"{asked}: of what the cluster has ({there}) too little is free: {missing}. "
        f"Set {settings}, or wait until others are done"
    )


def missing_of(needs: Sequence[Need], nodes: Iterable[Room]) -> str:
    """The first process that fits on no node, as text; empty if all fit.

    The largest are placed first, each on the fitting node with the fewest GPUs and then CPUs left, so that a process
    without a GPU goes to a node with one only if no other has room.
    """
    rooms = [dict(node) for node in nodes]
    for need in sorted(needs, key=lambda need: (need.each.get("GPU", 0), need.each.get("CPU", 0)), reverse=True):
        for placed in range(need.count):
            fitting = [room for room in rooms if _fits(need.each, room)]
            if not fitting:
                rest = f"after {placed} of them " if placed else ""
                largest = "; ".join(sorted({_amounts(room, need.each) for room in rooms})) or "nothing"
                return f"{rest}no node has room for a further {need.kind} ({_amounts(need.each)}): nodes have {largest}"
            room = min(fitting, key=lambda room: (room.get("GPU", 0), room.get("CPU", 0)))
            for key, much in need.each.items():
                room[key] = room.get(key, 0) - much
    return ""


def _fits(each: Mapping[str, float], room: Room) -> bool:
    return all(room.get(key, 0) >= much - SMALLEST for key, much in each.items())


def _amounts(room: Mapping[str, float], asked: Mapping[str, float] | None = None) -> str:
    """``2 CPUs, 1 GPU``: the amounts that are not 0, of ``room`` only those that are ``asked`` for."""
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
    """The resources of each live node."""
    return [node["Resources"] for node in _ray.nodes() if node["Alive"]]


def _free() -> list[Room]:
    """The free resources of each node."""
    return list(_ray._private.state.available_resources_per_node().values())
