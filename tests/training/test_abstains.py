"""A run whose reward could too often not judge says so, wherever one looks."""

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from carl.cli import app, guarded, run_config
from carl.config import RunConfig
from carl.methods.code import CodeConfig
from carl.runs import pipeline
from carl.runs.directory import RunDirectory
from carl.runs.report.sections import doubts
from carl.runs.screen import picture
from carl.runs.watch import look
from carl.training.abstains import EXIT_STATUS, too_many

SAID = "in 3 of 40 training iterations more than 10% of the frames could not be judged"


def test_a_tenth_is_not_too_many() -> None:
    assert not too_many(0, 0)
    assert not too_many(100, 10)
    assert too_many(100, 11)


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    """One that trained, and abstained."""
    config = CodeConfig(task="DoorKey-5x5", run_dir=tmp_path / "run")
    live = {"abstaining": 3, "iterations": 40, "counts": {"judged": 9_000, "abstains": 4_000}, "env_steps": 80_000}
    RunDirectory(config).write("training/code/live.json", live)
    return config


def test_watching_says_so(run: RunConfig) -> None:
    console = Console(file=StringIO(), width=300)
    console.print(picture(look(str(run.directory))))
    assert SAID in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_report_says_so() -> None:
    curves = {"code": [{"abstaining": 0, "iterations": 5}, {"abstaining": 3, "iterations": 40}], "sparse": [{}]}
    result = {"code": {"abstaining": 0, "iterations": 40}}
    (sentence,) = doubts(_artefacts({}, curves))
    assert SAID in sentence
    assert doubts(_artefacts(result, curves)) == [], "what the run ended with counts"


def _artefacts(result: dict[str, Any], curves: dict[str, Any]) -> Any:
    return SimpleNamespace(
        arms=["code", "sparse+progress", "sparse"],
        evaluation=lambda arm: result.get(arm, {}),
        curve=lambda arm: curves.get(arm, []),
        looks=lambda _: [],
    )


@pytest.mark.parametrize(("stage", "status"), [("train", EXIT_STATUS), ("collect", 0)])
def test_the_exit_status_says_so(run: RunConfig, monkeypatch: pytest.MonkeyPatch, stage: str, status: int) -> None:
    monkeypatch.setattr(pipeline.Pipeline, "run", lambda self, stages: None)
    done = CliRunner().invoke(app, [stage, run.task, "--run-dir", str(run.directory)])
    assert done.exit_code == status
    assert (SAID in " ".join(done.output.split())) is (status != 0)
    file = run.directory / "again.yaml"
    file.write_text(f"task: {run.task}\nrun_dir: {run.directory}\n")
    assert guarded(lambda: run_config([str(file)], "", (stage,))) == status, "also of a job, which typer does not run"
