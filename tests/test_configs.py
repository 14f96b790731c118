"""Every configuration we ship parses, and means what it says."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from carl.cli import app, settings, sweep_of
from carl.errors import ConfigError
from carl.methods.code import CodeConfig
from carl.runs.grid import SweepConfig
from carl.tasks import get_task
from tests.fakes.finished import leave

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "jobs" / "sweep.yaml"
JOBS = sorted(set((ROOT / "jobs").glob("*.yaml")) - {SWEEP})


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_every_job_configuration_parses_and_names_a_task(path: Path) -> None:
    config = settings(None, None, None, path, [])
    assert get_task(config.task).name == config.task


def test_the_sweep_parses_and_its_trials_differ_in_what_it_says():
    trials = sweep_of(SWEEP, []).trials()
    assert len(trials) == 8
    assert len({trial.config.directory for trial in trials}) == 8
    assert {get_task(trial.config.task).name for trial in trials} == {"DoorKey-5x5"}
    told = {(t.config.reward.method, t.config.train.rllib["training"]["lr"], t.config.seed) for t in trials}
    assert told == {(source, lr, seed) for source in ("code", "sparse") for lr in (0.001, 0.0003) for seed in (0, 1)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: {task: Empty-8x8}\ngrid: {train.env_stepps: [1]}", r"train\.env_stepps"),
        ("base: {task: Empty-8x8}\ngrid: {train.env_steps: [-1]}", r"train\.env_steps"),
        ("base: {task: Empty-8x8}\ngrid: {task.name: [x]}", "task is not a section"),
        ("base: {task: Empty-8x8}\ngrid: {seed: [1]}", "seed is the sweep's own"),
        ("base: {task: Empty-8x8}\nseeds: [1, 1]", "the same value twice"),
    ],
)
def test_a_wrong_sweep_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        sweep_of(tmp_path / "sweep.yaml", [])


def test_every_field_says_what_it_is() -> None:
    def fields(model: type) -> list[str]:
        bare = [name for name, field in model.model_fields.items() if not field.description]
        sections = [field.annotation for field in model.model_fields.values() if not field.description]
        return [name for name in bare if not isinstance(model.model_fields[name].annotation, type)] + [
            name for section in sections if isinstance(section, type) for name in fields(section)
        ]

    assert fields(CodeConfig) == []
    assert fields(SweepConfig) == []


def test_importing_carl_and_its_configuration_stays_light() -> None:
    code = (
        "import sys, carl, carl.config, carl.tasks, carl.program, carl.errors, carl.cli; carl.tasks.tasks(); "
        "print([m for m in ('torch', 'ray', 'transformers', 'cv2', 'minigrid') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.env_runners"):
        settings("DoorKey-8x8", 0, tmp_path, None, ["train.env_runners=-1"])
    with pytest.raises(ConfigError, match=r"section\.field=value"):
        settings("DoorKey-8x8", 0, tmp_path, None, ["nonsense"])


def test_an_unknown_task_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    found = CliRunner().invoke(app, ["run", "DoorKey-9x9", "--run-dir", str(run_dir)])
    assert found.exit_code != 0
    assert "DoorKey-8x8" in str(found.exception)
    assert not run_dir.exists()


def test_rllib_settings_that_were_added_or_taken_away_are_named(tmp_path: Path) -> None:
    from carl.artefacts import STAGES, write_json
    from carl.runs.directory import RunDirectory

    config = CodeConfig(task="DoorKey-8x8", run_dir=tmp_path)
    older = config.model_dump(mode="json")
    for name in ("learners", "rllib", "loggers", "gpus_per_learner", "cpus_per_runner", "gpus_per_runner"):
        del older["train"][name]
    write_json(tmp_path / "config.json", older)
    write_json(tmp_path / STAGES, {"train": {"done": True, "seconds": 1.0}})
    leave("train", config)
    assert RunDirectory(config).done("train"), "a run of an older carl goes on"
    with pytest.raises(ConfigError, match=r"train\.rllib\.training\.lr=None there, 1.0 now"):
        RunDirectory(settings("DoorKey-8x8", None, tmp_path, None, ["train.rllib={training: {lr: 1.0}}"]))


def test_a_directory_is_not_used_for_a_run_that_was_told_otherwise(tmp_path: Path) -> None:
    from carl.runs.directory import RunDirectory

    RunDirectory(CodeConfig(task="DoorKey-8x8", seed=1, run_dir=tmp_path))
    with pytest.raises(ConfigError, match="seed=1 there, 2 now"):
        RunDirectory(settings("DoorKey-8x8", 2, tmp_path, None, []))
    assert settings("DoorKey-8x8", None, tmp_path, None, []).seed == 1


@pytest.mark.parametrize("package", ["typer", "ray"])
def test_an_image_without_a_package_is_told_what_to_install(package: str, tmp_path: Path) -> None:
    code = (
        f"import sys, runpy; sys.modules[{package!r}] = None; "
        f"sys.argv = ['carl', 'serve', '--model', {str(tmp_path)!r}]; runpy.run_module('carl', run_name='__main__')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == 1
    assert f"carl needs the package {package}: pip install code-as-reward" in found.stderr
    assert "Traceback" not in found.stderr
