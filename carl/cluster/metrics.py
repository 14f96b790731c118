"""What a run tells Prometheus, by way of Ray's metrics: each node's export port shows these names after ``ray_``.

The driver tells all of it, from the sums that its env runners report anyway. Without Ray nothing happens.
"""

import logging
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from carl.cluster.logs import origin

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric:
    """``labels`` come after ``run``, which all have. Ray adds ``_total`` to the names of counters."""

    name: str
    kind: Literal["Counter", "Gauge"]
    text: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """The name that Prometheus sees."""
        return f"ray_{self.name}" + ("_total" if self.kind == "Counter" else "")


METRICS = (
    Metric("carl_stage_running", "Gauge", "1 while a stage runs.", ("stage",)),
    Metric("carl_stage_seconds", "Counter", "Seconds that a stage took, told at its end.", ("stage",)),
    Metric("carl_synthesis_requests", "Counter", "Requests to the VLM; outcome: answered or failed.", ("outcome",)),
    Metric("carl_synthesis_tokens", "Counter", "Tokens of these; kind: prompt or completion.", ("kind",)),
    Metric("carl_synthesis_seconds", "Counter", "Seconds that answers took."),
    Metric("carl_env_runners", "Gauge", "Env runners in good health, the driver's own not counted.", ("arm",)),
    Metric("carl_env_steps", "Counter", "Environment steps that were sampled.", ("arm",)),
    Metric(
        "carl_episodes", "Counter", "Training episodes that ended; outcome: success or failure.", ("arm", "outcome")
    ),
    Metric("carl_return", "Gauge", "Mean return of training episodes.", ("arm",)),
    Metric("carl_episode_length", "Gauge", "Their mean length, in steps.", ("arm",)),
    Metric("carl_success_rate", "Gauge", "Success rate on the episodes of the learning curve.", ("arm",)),
    Metric("carl_reward_version", "Gauge", "The newest reward version that paid.", ("arm",)),
    Metric("carl_stale_steps", "Counter", "Steps learned from that an older version paid.", ("arm",)),
    Metric("carl_episodes_begun", "Counter", "Training episodes that a program was run for.", ("arm",)),
    Metric("carl_subtask_fired", "Counter", "Those in which a sub-task got done; the first is 1.", ("arm", "subtask")),
    Metric("carl_judgements", "Counter", "Judgements; source: cache or program.", ("arm", "source")),
    Metric("carl_abstains", "Counter", "Frames that could not be judged.", ("arm",)),
    Metric("carl_box_restarts", "Counter", "Boxes that had to be replaced.", ("arm",)),
    Metric("carl_quarantines", "Counter", "Env runners that put their program into quarantine.", ("arm",)),
)
"""All there are."""

COUNTED: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "cache_hits": ("carl_judgements", {"source": "cache"}),
    "cache_misses": ("carl_judgements", {"source": "program"}),
    "begun": ("carl_episodes_begun", {}),
    "abstains": ("carl_abstains", {}),
    "box_restarts": ("carl_box_restarts", {}),
    "quarantined": ("carl_quarantines", {}),
}
"""What sessions count (see RewardSession.counts), as metrics; beside them there is ``fired:k`` for sub-task k."""

REFRESH_S = 5.0
"""Seconds between two tellings of the same gauges: Ray forgets one that nobody sets for twenty."""

_KINDS = {metric.name: metric.kind for metric in METRICS}
_gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}


def tell(name: str, value: float | None, **labels: str) -> None:
    """Set a gauge, or add to a counter. Whatever happens here, the run goes on."""
    if value is None or not _ray_runs():
        return
    tags = {"run": origin().get("run", ""), **labels}
    if _KINDS[name] == "Gauge":
        _gauges[name, tuple(tags.items())] = value
        _keeper()
        _record(name, value, tags)
    elif value > 0:
        _record(name, value, tags)


def forget(arm: str) -> None:
    """Keep the gauges of an arm alive no more: its training has ended."""
    for name, tags in list(_gauges):
        if ("arm", arm) in tags:
            _gauges.pop((name, tags), None)


def _ray_runs() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _record(name: str, value: float, tags: dict[str, str]) -> None:
    try:
        instrument = _instruments()[name]
        (instrument.set if _KINDS[name] == "Gauge" else instrument.inc)(value, tags=tags)
    except Exception:  # Ray's own affair, such as an agent that is gone; nobody trains for the sake of a metric
        _log.debug("metric %s is lost", name, exc_info=True)


def tell_counts(counts: Mapping[str, int], arm: str) -> None:
    """Add what sessions counted since the last time."""
    for key, count in counts.items():
        what, _, number = key.partition(":")
        if key in COUNTED:
            name, labels = COUNTED[key]
            tell(name, count, arm=arm, **labels)
        elif what == "fired":
            tell("carl_subtask_fired", count, arm=arm, subtask=number)


@cache
def _keeper() -> threading.Thread:
    """The thread that keeps gauges alive, begun with the first one."""
    thread = threading.Thread(target=_keep, name="gauges", daemon=True)
    thread.start()
    return thread


def _keep() -> None:
    while True:
        time.sleep(REFRESH_S)
        refresh()


def refresh() -> None:
    """Tell the gauges of this process's run again."""
    for (name, tags), value in list(_gauges.items()):
        if _ray_runs() and dict(tags)["run"] == origin().get("run", ""):
            _record(name, value, dict(tags))


@cache
def _instruments() -> dict[str, Any]:
    """Ray's objects, which outlive a Ray that is shut down."""
    import ray.util.metrics as kinds

    return {
        metric.name: getattr(kinds, metric.kind)(metric.name, metric.text, ("run", *metric.labels))
        for metric in METRICS
    }
