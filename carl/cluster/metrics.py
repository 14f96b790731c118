"""The metrics of a run, exported through Ray: each node's metrics port serves them to Prometheus as ``ray_<name>``.

The driver records all of them, from the sums that its env runners report. Without Ray :func:`record` does nothing.
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
    """One metric. ``labels`` follow the label ``run``, which every metric has. Ray adds ``_total`` to counters."""

    name: str
    kind: Literal["Counter", "Gauge"]
    text: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """The name at the metrics port."""
        return f"ray_{self.name}" + ("_total" if self.kind == "Counter" else "")


METRICS = (
    Metric("carl_stage_running", "Gauge", "1 while a stage runs.", ("stage",)),
    Metric("carl_stage_seconds", "Counter", "Seconds that a stage took, recorded at its end.", ("stage",)),
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
    Metric("carl_rows_judged", "Counter", "Rows that a reward source was asked about, initial ones too.", ("arm",)),
    Metric("carl_judgements", "Counter", "Judgements of a program; source: cache or program.", ("arm", "source")),
    Metric("carl_abstains", "Counter", "Rows that a reward source could not judge.", ("arm",)),
    Metric("carl_box_restarts", "Counter", "Boxes that had to be replaced.", ("arm",)),
    Metric("carl_watch_alarm", "Gauge", "Alarms that stand against the reward.", ("arm",)),
    Metric("carl_watch_seconds", "Counter", "Seconds that the watch took to film and judge the policy.", ("arm",)),
    Metric("carl_program_weight", "Gauge", "Weight of the program in the reward; 0: it was dropped.", ("arm",)),
    Metric("carl_quarantines", "Counter", "Env runners that put their source into quarantine.", ("arm",)),
)
"""Every metric of a run."""

COUNTED: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "judged": ("carl_rows_judged", {}),
    "cache_hits": ("carl_judgements", {"source": "cache"}),
    "cache_misses": ("carl_judgements", {"source": "program"}),
    "begun": ("carl_episodes_begun", {}),
    "abstains": ("carl_abstains", {}),
    "box_restarts": ("carl_box_restarts", {}),
    "quarantined": ("carl_quarantines", {}),
}
"""Counts of reward sessions (RewardSession.counts) and their metrics; ``fired:k`` of sub-task k is a metric as well."""

REFRESH_S = 5.0
"""Seconds between two settings of the same gauges: Ray drops a gauge that is not set for 20 s."""

_KINDS = {metric.name: metric.kind for metric in METRICS}
_gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}


def record(name: str, value: float | None, **labels: str) -> None:
    """Set a gauge, or add ``value`` to a counter. Without Ray, or with None, nothing; Ray's errors are logged."""
    if value is None or not _ray_runs():
        return
    tags = {"run": origin().get("run", ""), **labels}
    if _KINDS[name] == "Gauge":
        _gauges[name, tuple(tags.items())] = value
        _keeper()
        _emit(name, value, tags)
    elif value > 0:
        _emit(name, value, tags)


def forget(arm: str) -> None:
    """Stop refreshing the gauges of an arm whose training has ended."""
    for name, tags in list(_gauges):
        if ("arm", arm) in tags:
            _gauges.pop((name, tags), None)


def _ray_runs() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _emit(name: str, value: float, tags: dict[str, str]) -> None:
    try:
        instrument = _instruments()[name]
        (instrument.set if _KINDS[name] == "Gauge" else instrument.inc)(value, tags=tags)
    except Exception:  # whatever Ray raises, such as for a lost agent: a metric must not end a run
        _log.debug("metric %s is lost", name, exc_info=True)


def record_counts(counts: Mapping[str, int], arm: str) -> None:
    """Add what the sessions of an arm counted since the last call, by the keys of :data:`COUNTED` and ``fired:k``."""
    for key, count in counts.items():
        what, _, number = key.partition(":")
        if key in COUNTED:
            name, labels = COUNTED[key]
            record(name, count, arm=arm, **labels)
        elif what == "fired":
            record("carl_subtask_fired", count, arm=arm, subtask=number)


@cache
def _keeper() -> threading.Thread:
    """The thread that refreshes gauges, started with the first one."""
    thread = threading.Thread(target=_keep, name="gauges", daemon=True)
    thread.start()
    return thread


def _keep() -> None:
    while True:
        time.sleep(REFRESH_S)
        refresh()


def refresh() -> None:
    """Set the gauges of this process's run again, with their last values."""
    for (name, tags), value in list(_gauges.items()):
        if _ray_runs() and dict(tags)["run"] == origin().get("run", ""):
            _emit(name, value, dict(tags))


@cache
def _instruments() -> dict[str, Any]:
    """Ray's metric objects by name; they survive a shutdown of Ray."""
    import ray.util.metrics as kinds

    return {
        metric.name: getattr(kinds, metric.kind)(metric.name, metric.text, ("run", *metric.labels))
        for metric in METRICS
    }
