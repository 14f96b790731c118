"""The entry points of Ray jobs: a file and settings in, stages run."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from carl import cli
from carl.runs.stages import ORDER

JOBS = Path(__file__).parents[1] / "jobs"
DEMO = str(JOBS / "demo.yaml")


def ended(monkeypatch, name: str, *arguments: str) -> object:
    """The exit status, or last words, of ``python jobs/NAME.py ARGUMENTS``."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(JOBS / f"{name}.py"), run_name="__main__")
    return ended.value.code


def started(monkeypatch, name: str, *arguments: str) -> list:
    """What ``python jobs/NAME.py ARGUMENTS`` runs: configuration and stages."""
    runs: list = []
    monkeypatch.setattr(cli, "run_stages", lambda config, stages=None: runs.append((config, stages)))
    code = ended(monkeypatch, name, *arguments)
    assert code == (0 if runs else 1) or "python jobs" in str(code)
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


def test_a_benchmark_leaves_its_last_line_in_the_storage(monkeypatch, tmp_path, capsys):
    benchmarks = tmp_path / "benchmarks"
    benchmarks.mkdir()
    (benchmarks / "toy.py").write_text("import sys; print('working'); print('{\"told\": \"' + sys.argv[1] + '\"}')")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "benchmark.py").write_text((JOBS / "benchmark.py").read_text())
    monkeypatch.setattr(sys.modules[__name__], "JOBS", tmp_path / "jobs")
    kept = tmp_path / "kept"
    assert ended(monkeypatch, "benchmark", "toy", kept.as_uri(), "much") == 0
    (path,) = (path for path in kept.iterdir() if path.name != "copy.json")
    assert path.name.startswith("toy-")
    assert json.loads(path.read_text()) == {"told": "much"}
    assert "working" in capsys.readouterr().out
    assert ended(monkeypatch, "benchmark", "nothing", kept.as_uri()) == 1
    assert "there are toy" in capsys.readouterr().err
    assert "python jobs" in str(ended(monkeypatch, "benchmark"))


def test_a_sweep_is_run_as_its_file_says(monkeypatch, capsys):
    asked: list = []
    monkeypatch.setattr(cli, "run_sweep", lambda *told: asked.append(told))
    assert ended(monkeypatch, "sweep", str(JOBS / "sweep.yaml"), "max_concurrent=2") == 0
    assert asked == [(JOBS / "sweep.yaml", ["max_concurrent=2"])]
    assert "python jobs" in str(ended(monkeypatch, "sweep"))
