"""The entry points of Ray jobs: a file and settings in, stages run."""

import runpy
import sys
from pathlib import Path

import pytest

from carl import cli
from carl.rundir import ORDER

JOBS = Path(__file__).parents[1] / "jobs"
DEMO = str(JOBS / "demo.yaml")


def started(monkeypatch, name: str, *arguments: str) -> list:
    """What ``python jobs/NAME.py ARGUMENTS`` runs: configuration and stages."""
    runs: list = []
    monkeypatch.setattr(cli, "run_stages", lambda config, stages=None: runs.append((config, stages)))
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(JOBS / f"{name}.py"), run_name="__main__")
    assert ended.value.code == (0 if runs else 1) or "python jobs" in str(ended.value.code)
    return runs


@pytest.mark.parametrize(("name", "stages"), [("run", None), ("synthesize", ORDER[:3]), ("train", ORDER[3:])])
def test_a_job_runs_its_stages_of_what_it_is_told(monkeypatch, tmp_path, name, stages):
    ((config, given),) = started(monkeypatch, name, DEMO, f"run_dir={tmp_path}", "train.env_steps=7")
    assert (config.task, config.train.env_steps, config.run_dir) == ("DoorKey-8x8", 7, tmp_path)
    assert given == stages


@pytest.mark.parametrize("name", ["run", "synthesize", "train"])
def test_without_a_file_it_says_how_and_a_misspelt_setting_is_named(monkeypatch, capsys, name):
    assert started(monkeypatch, name) == []
    assert started(monkeypatch, name, DEMO, "train.env_stepps=7") == []
    assert "train.env_stepps" in capsys.readouterr().err
