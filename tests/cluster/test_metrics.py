"""The metrics of a run, read back where Prometheus would read them."""

import subprocess
import sys
import time
import urllib.request

import pytest
import ray

from carl.cluster import metrics
from carl.cluster.logs import about
from carl.cluster.metrics import METRICS, record, record_counts
from carl.config import TrainConfig
from carl.program import RewardProgram, SubTask
from carl.rewards.latch import PROGRESS
from carl.rewards.mix import Mix
from carl.rewards.program import ProgramReward
from carl.training.evaluation import Evaluator
from carl.training.train import train
from carl.training.training import Training
from tests.fakes.corridor import CORRIDOR

STEP = "def progress(frame, initial):\n    return min(1.0, int(frame[0, 0, 0]) / {})\n"
WALK = RewardProgram(
    subtasks=tuple(SubTask(name=f"walk to {end}", code=STEP.format(end)) for end in (1, 4, 200)), ordered=True
)


@pytest.fixture
def recorded(monkeypatch):
    """What is recorded, by name and labels: the last value of a gauge, the sum of a counter."""
    values: dict[tuple[str, ...], float] = {}

    class Instrument:
        def __init__(self, metric):
            self.metric = metric

        def _key(self, tags):
            assert set(tags) == {"run", *self.metric.labels}
            return self.metric.name, *(tags[label] for label in self.metric.labels)

        def set(self, value, tags):
            assert self.metric.kind == "Gauge"
            values[self._key(tags)] = value

        def inc(self, value, tags):
            assert self.metric.kind == "Counter"
            values[self._key(tags)] = values.get(self._key(tags), 0) + value

    monkeypatch.setattr(metrics, "_instruments", lambda: {metric.name: Instrument(metric) for metric in METRICS})
    return values


@pytest.mark.usefixtures("ray_cluster")
def test_a_training_records_what_its_curve_and_counts_say(tmp_path, recorded):
    config = TrainConfig(env_runners=0, envs_per_runner=8, env_steps=4_000, evaluate_every=1, checkpoint_every=9)
    run = Training(CORRIDOR, ProgramReward(WALK), Mix(shows=PROGRESS), 3, tmp_path / "code", train=config)
    with Evaluator(workers=0) as evaluator:
        progressed = train(run, evaluator=evaluator).progressed
    assert recorded["carl_env_steps", "code"] == progressed.env_steps
    ended = recorded["carl_episodes", "code", "success"] + recorded["carl_episodes", "code", "failure"]
    assert ended == progressed.episodes
    assert recorded["carl_reward_version", "code"] == 1
    assert 0 < recorded["carl_success_rate", "code"] <= 1
    assert 0 < recorded["carl_return", "code"] < 3
    assert recorded["carl_rows_judged", "code"] == progressed.counts["judged"] > progressed.env_steps
    assert recorded["carl_judgements", "code", "program"] == progressed.counts["cache_misses"]
    assert recorded["carl_judgements", "code", "cache"] == progressed.counts["cache_hits"]
    fired = [recorded["carl_subtask_fired", "code", str(number)] for number in (1, 2)]
    assert ("carl_subtask_fired", "code", "3") not in recorded, "nobody walks to 200"
    assert ended <= recorded["carl_episodes_begun", "code"] <= ended + 8
    assert recorded["carl_episodes_begun", "code"] >= fired[0] > fired[1]
    assert fired[1] == recorded["carl_episodes", "code", "success"]
    assert [progressed.counts[f"fired:{number}"] for number in (1, 2, 3)] == [*fired, 0]
    recorded.clear()
    metrics.refresh()
    assert not [key for key in recorded if "code" in key], "the training has ended"


@pytest.mark.usefixtures("ray_cluster")
def test_prometheus_reads_them_at_the_nodes_port():
    about(run="corridor-7")
    try:
        for metric in METRICS:
            record(metric.name, 2, **dict.fromkeys(metric.labels, "x"))
        exported = scraped('run="corridor-7"', len(METRICS))
    finally:
        about(run=None)
    assert {line.partition("{")[0] for line in exported} == {metric.exported for metric in METRICS}
    assert {line.rpartition(" ")[2] for line in exported} == {"2.0"}


def scraped(mark: str, expected: int) -> list[str]:
    """The lines at the node's port that hold ``mark``, once there are as many as expected."""
    url = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    lines: list[str] = []
    deadline = time.monotonic() + 60
    while len(lines) < expected and time.monotonic() < deadline:
        time.sleep(0.5)
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if mark in line]
    return lines


@pytest.mark.usefixtures("ray_cluster")
def test_gauges_are_set_again_until_another_run_begins(recorded):
    about(run="one")
    try:
        record("carl_return", 1.0, arm="code")
        record("carl_env_steps", 5, arm="code")
        recorded.clear()
        metrics.refresh()
        assert recorded == {("carl_return", "code"): 1.0}
        about(run="two")
        recorded.clear()
        metrics.refresh()
        assert recorded == {}
    finally:
        about(run=None)


@pytest.mark.usefixtures("ray_cluster")
def test_a_metric_that_cannot_be_recorded_stops_nothing(monkeypatch):
    def fail():
        raise RuntimeError("no agent")

    monkeypatch.setattr(metrics, "_instruments", fail)
    record("carl_return", 1.0, arm="code")
    record_counts({"abstains": 1, "fired:1": 2, "calls of another source": 3}, "code")


def test_without_ray_nothing_is_recorded_and_ray_is_not_imported():
    use = "import sys; from carl.cluster.metrics import record; record('carl_return', 1.0, arm='code')"
    code = f"{use}; print('ray' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
