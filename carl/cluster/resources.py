"""Room on the cluster for the processes of a run, made sure of before Ray would wait for it for ever.

``room_for`` asks Ray for a placement group, and so an autoscaler for what is not free, whatever others ask for. RLlib
and Serve start no processes inside a group that a driver holds, so it is given up before they do; until they are up,
the other runs on the cluster wait for their turn. Ray then places them one by one: processes of very different sizes
may still block each other.
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
"""How long to wait at a time, and in all where nobody else is: replicas that were just told to stop take a moment."""

GROWTH_PATIENCE_S = 900.0
"""How long to wait in all for an autoscaler's nodes, and for other runs: machines have to start, and arms to end."""

TURN_PATIENCE_S = 2 * GROWTH_PATIENCE_S
"""How long to wait while other runs get their processes."""

PAUSE_S = 1.0
"""How long a run that found no room leaves the turn to others, who look for it every RETRY_S."""

RETRY_S = 0.2

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


@contextmanager
def room_for(needs: Sequence[Need]) -> Iterator[None]:
    """Begins when the nodes have room for ``needs``; other runs on the cluster do not take it while the context lasts.

    What is busy is waited for, on a cluster that others may share as long as an autoscaler. In between, others get
    their turn. Raises ResourceError, which says what is missing.
    """
    needs = [need for need in needs if need.count and any(need.each.values())]
    if not needs:
        yield
        return
    if missing_of(needs, _nodes()) and not grows():
        raise ResourceError(_lack(needs))
    patience_s = RESOURCE_PATIENCE_S if alone() else GROWTH_PATIENCE_S
    began = time.monotonic()
    told = False
    while True:
        with _turn():
            if _granted(needs):
                yield
                return
        if time.monotonic() > began + patience_s:
            raise ResourceError(_lack(needs))
        if not told:
            _log.warning("too little is free for %s. Waiting, %g s at most", _asked(needs), patience_s)
            told = True
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
    """An actor of a name that one alone can have. It dies with this process, or its node, if nobody ends it before."""
    sign = _ray.remote(num_cpus=0)(_Sign).options(name="turn", namespace="carl", scheduling_strategy=here())
    began = time.monotonic()
    told = False
    while True:
        try:
            return sign.remote()
        except ValueError as error:  # the name is taken
            if time.monotonic() > began + TURN_PATIENCE_S:
                raise ResourceError(
                    f"other runs have been getting their processes on this cluster for {TURN_PATIENCE_S:g} s: wait "
                    "until they have them, or stop the one that does not get them"
                ) from error
        if not told:
            _log.warning("another run is getting its processes. Waiting for it, %g s at most", TURN_PATIENCE_S)
            told = True
        time.sleep(RETRY_S)


class _Sign:
    """Says by being there that a run is getting its processes."""


def _granted(needs: Sequence[Need]) -> bool:
    """Whether all ``needs`` fit at one time into what is free, or will in a moment."""
    each = [{key: much for key, much in need.each.items() if much} for need in needs for _ in range(need.count)]
    group = placement_group(each)
    try:
        return bool(ray.wait([group.ready()], timeout=RESOURCE_PATIENCE_S)[0])
    finally:
        remove_placement_group(group)


def _asked(needs: Sequence[Need]) -> str:
    total = _told(_sum({key: need.count * much for key, much in need.each.items()} for need in needs))
    return f"{' and '.join(map(str, needs))}, {total} in all"


def _lack(needs: Sequence[Need]) -> str:
    """What the cluster lacks or has not free, and what to do."""
    settings = "; ".join(need.settings for need in needs)
    asked = _asked(needs) + (f", and the autoscaler had {GROWTH_PATIENCE_S:g} s" if grows() else "")
    if missing := missing_of(needs, _nodes()):
        return f"{asked}: {missing}. Set {settings}, or give the cluster more"
    there, missing = _told(_sum(_nodes())), missing_of(needs, _free()) or "never all at one time"
    return (
        f"{asked}: of what the cluster has ({there}) too little is free: {missing}. "
        f"Set {settings}, or wait until others are done"
    )


def missing_of(needs: Sequence[Need], nodes: Iterable[Room]) -> str:
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
