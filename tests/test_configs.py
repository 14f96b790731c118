"""Every configuration we ship parses, and means what it says."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from carl.cli import app, settings
from carl.config import RunConfig
from carl.errors import ConfigError
from carl.task import get_task

ROOT = Path(__file__).parents[1]
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_every_job_configuration_parses_and_names_a_task(path: Path) -> None:
    config = settings(None, None, None, path, [])
    assert get_task(config.task).name == config.task


def test_every_field_says_what_it_is() -> None:
    def fields(model: type) -> list[str]:
        bare = [name for name, field in model.model_fields.items() if not field.description]
        sections = [field.annotation for field in model.model_fields.values() if not field.description]
        return [name for name in bare if not isinstance(model.model_fields[name].annotation, type)] + [
            name for section in sections if isinstance(section, type) for name in fields(section)
        ]

    assert fields(RunConfig) == []


def test_importing_carl_and_its_configuration_stays_light() -> None:
    code = (
        "import sys, carl, carl.config, carl.task, carl.program, carl.errors, carl.cli; carl.task.tasks(); "
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


def test_a_directory_is_not_used_for_a_run_that_was_told_otherwise(tmp_path: Path) -> None:
    from carl.rundir import RunDirectory

    RunDirectory(RunConfig(task="DoorKey-8x8", seed=1, run_dir=tmp_path))
    with pytest.raises(ConfigError, match="seed=1 there, 2 now"):
        RunDirectory(settings("DoorKey-8x8", 2, tmp_path, None, []))
    assert settings("DoorKey-8x8", None, tmp_path, None, []).seed == 1


@pytest.mark.parametrize("package", ["typer", "torch"])
def test_an_image_without_a_package_is_told_what_to_install(package: str, tmp_path: Path) -> None:
    code = (
        f"import sys, runpy; sys.modules[{package!r}] = None; "
        f"sys.argv = ['carl', 'serve', '--model', {str(tmp_path)!r}]; runpy.run_module('carl', run_name='__main__')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == 1
    assert f"carl needs the package {package}: pip install code-as-reward" in found.stderr
    assert "Traceback" not in found.stderr
