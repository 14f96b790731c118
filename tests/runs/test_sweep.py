"""A small sweep on a corridor: what it leaves, goes on from, and says of a trial that fails."""

import csv
import json

import pytest

from carl.methods.code import CodeConfig
from carl.runs import sweep as sweeping
from carl.runs.directory import RunDirectory, read_config
from carl.runs.grid import SweepConfig
from carl.runs.resolve import resolved
from carl.runs.stages import ORDER
from carl.runs.sweep import run_sweep
from carl.statistics import t_interval
from tests.fakes.corridor import CORRIDOR
from tests.fakes.finished import leave

pytestmark = pytest.mark.usefixtures("ray_cluster")

SMALL = {"training": {"train_batch_size_per_learner": 500, "minibatch_size": 125, "num_epochs": 2}}
BASE = {
    "task": "tests.fakes.corridor:CORRIDOR",
    "reward": {"source": "sparse"},
    "train": {"env_runners": 0, "envs_per_runner": 8, "env_steps": 1_000, "evaluate_every": 1, "rllib": SMALL},
    "evaluation": {"episodes": 8, "curve_episodes": 4},
}


def test_a_sweep_compares_its_settings_and_a_failed_trial_is_a_row(tmp_path):
    grid = {"train.rllib.training.lr": [0.003, "fast"]}
    kept = tmp_path / "kept"
    sweep = SweepConfig.model_validate(
        {"base": BASE, "grid": grid, "seeds": [0, 1], "directory": tmp_path, "storage": kept.as_uri()}
    )
    told = []
    good, bad = run_sweep(sweep, lambda label, done, total=None: told.append((label, done, total)))
    assert told[-1] == ("trials", 4, 4)
    assert good["setting"] == "train.rllib.training.lr=0.003"
    assert set(good["seeds"]) == {0, 1}
    assert good["success_rate"] == sum(good["seeds"].values()) / 2 > 0.5
    assert good["failed"] == {}
    assert bad["success_rate"] is None
    assert set(bad["failed"]) == {0, 1}
    assert "ConfigError: RLlib refuses" in bad["failed"][0]
    folder = tmp_path / "comparison"
    assert {path.name for path in kept.iterdir()} >= {"comparison", "train.rllib.training.lr=0.003-seed-0"}
    assert len(json.loads((folder / "sweep.json").read_text())["settings"]) == 2
    assert [row["seeds"] for row in csv.DictReader((folder / "sweep.csv").open())] == ["2", "0"]
    page = (folder / "sweep.html").read_text()
    assert page.count("<polyline") == page.count("<polygon") == 1
    done = tmp_path / "train.rllib.training.lr=0.003-seed-1"
    before = (done / "training/sparse/curve.jsonl").stat().st_mtime_ns
    assert run_sweep(sweep) == [good, bad]
    assert (done / "training/sparse/curve.jsonl").stat().st_mtime_ns == before, "what is done is not done again"


def test_trials_that_differ_in_training_alone_share_their_program(tmp_path, monkeypatch):
    made = []

    class Maker:
        """Stands in for the stages that ask the VLM."""

        def __init__(self, config, progress):
            self.directory = RunDirectory(config)

        def run(self, stages):
            assert stages == ORDER[:3]
            if not self.directory.done("verify"):
                made.append(self.directory.config.seed)
                for stage in stages:
                    with self.directory.stage(stage):
                        leave(stage, self.directory.config)

    monkeypatch.setattr(sweeping, "Pipeline", Maker)
    base = BASE | {"reward": {"source": "code"}}
    grid = {"train.env_runners": [0, 1], "reward.source": ["code", "sparse"]}
    sweep = SweepConfig.model_validate({"base": base, "grid": grid, "seeds": [5, 6], "directory": tmp_path})
    assert sweeping._make_programs(sweep, lambda *told: None) == {}
    assert sorted(made) == [5, 6]
    assert len({trial.config.id for trial in sweep.trials()}) == len(sweep.trials())
    for trial in sweep.trials():
        copied = (trial.config.directory / "program.json").exists()
        assert copied is (trial.config.reward.method == "code")
        if copied:
            assert RunDirectory(trial.config).done("verify")
            assert read_config(trial.config.directory) == resolved(trial.config, CORRIDOR)


def test_a_trial_s_process_is_set_up_as_a_driver_s(tmp_path, monkeypatch):
    did = []
    monkeypatch.setattr(sweeping, "quiet", lambda: did.append("quiet"))
    monkeypatch.setattr(sweeping, "Pipeline", did.append)
    with pytest.raises(AttributeError, match="run"):
        sweeping._run(CodeConfig(task="DoorKey-5x5", run_dir=tmp_path))
    assert did == ["quiet", CodeConfig(task="DoorKey-5x5", run_dir=tmp_path)]


def test_the_interval_over_seeds():
    assert t_interval([0.5]) == (0.0, 1.0)
    assert t_interval([1.0, 1.0, 1.0]) == (1.0, 1.0)
    low, high = t_interval([0.5, 0.6, 0.7])
    assert (low, high) == (pytest.approx(0.6 - 4.3027 * 0.1 / 3**0.5, abs=1e-4), pytest.approx(0.8484, abs=1e-4))
