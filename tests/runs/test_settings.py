"""Settings as people write them, in files, ``--set`` and grids; and what is said of those that are wrong."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from carl import __version__
from carl.artefacts import CONFIG
from carl.cli import app
from carl.config import RunConfig
from carl.errors import CarlError, ConfigError
from carl.methods.code import CodeConfig
from carl.runs.directory import RunDirectory
from carl.runs.pipeline import Pipeline
from carl.runs.settings import settings, sweep_of, value_of

TASK = "DoorKey-5x5"


def told(*sets: str, file: Path | None = None, run_dir: Path | None = None) -> RunConfig:
    return settings(TASK, None, run_dir or Path("nowhere"), file, list(sets))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("3e-4", 3e-4), ("1E-4", 1e-4), ("2.5e-3", 2.5e-3), (".5", 0.5), ("-1.", -1.0), (".inf", math.inf)],
        *[("1e5", 100_000), ("2.5e3", 2_500), ("1e400", math.inf), ("1e20", 1e20), ("200_000", 200_000)],
        *[("010", 10), ("0x10", 16), ("0o10", 8), ("-7", -7), ("1:30", "1:30"), ("2026-01-02", "2026-01-02")],
        *[("@cf/vendor/x", "@cf/vendor/x"), ("*x", "*x"), ("&x", "&x"), ("!x", "!x"), ("%x", "%x"), ("`x`", "`x`")],
        *[("a: b", {"a": "b"}), ("a:b", "a:b"), ("x #1", "x #1"), ("foo:", "foo:"), ("- a", ["a"]), ("=", "=")],
        *[("", None), ("null", None), ("~", None), ("~/runs", "~/runs"), ("no", False), ("true", True), ("{}", {})],
        *[("'3e-4'", "3e-4"), ("[1e3, @x, %y]", [1000, "@x", "%y"]), ("{a: {lr: 3e-4}}", {"a": {"lr": 3e-4}})],
    ],
)
def test_a_value_means_what_it_says(text: str, value: Any) -> None:
    found = value_of(text)
    assert (found, type(found)) == (value, type(value))


def test_files_settings_and_grids_are_read_alike(tmp_path: Path) -> None:
    text = (
        "vlm: {model: @cf/vendor/x}\ntrain:\n  env_steps: 2e5\n  rllib: {training: {lr: 3e-4}}\nreward.source: sparse\n"
    )
    (tmp_path / "run.yaml").write_text(text)
    config = told(file=tmp_path / "run.yaml")
    assert config == told(
        *("vlm.model=@cf/vendor/x", "train.env_steps=2e5", "train.rllib.training.lr=3e-4", "reward={source: sparse}")
    )
    assert (config.vlm.model, config.train.env_steps) == ("@cf/vendor/x", 200_000)
    assert config.train.rllib == {"training": {"lr": 3e-4}}
    (tmp_path / "sweep.yaml").write_text(
        f"base: {{task: {TASK}}}\nseeds: [0]\ndirectory: ~/s\n"
        "grid: {train.rllib.training.lr: [3e-4, 1e-3], vlm.model: [@a/b, null]}"
    )
    sweep = sweep_of(tmp_path / "sweep.yaml", ["grid.train.env_steps=[1e4]", "base.collect.randoms=3e2"])
    assert sweep.path == Path.home() / "s"
    assert [trial.config.train.rllib["training"]["lr"] for trial in sweep.trials()] == [3e-4, 3e-4, 1e-3, 1e-3]
    assert [trial.config.vlm.model for trial in sweep.trials()] == 2 * ["@a/b", "carl-nano"]
    assert {(trial.config.train.env_steps, trial.config.collect.randoms) for trial in sweep.trials()} == {(10_000, 300)}


def test_a_file_cannot_give_the_older_name_of_a_setting_and_its_name_of_today_differently(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    for text in ("reward: {source: sparse, method: code}", "reward.source: sparse\nreward.method: code"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"source is the older name of method: give one of them"):
            told(file=path)
    path.write_text(f"base: {{task: {TASK}, reward: {{source: sparse, method: code}}}}\nseeds: [0]")
    with pytest.raises(ConfigError, match=r"source is the older name of method: give one of them"):
        sweep_of(path, [])
    path.write_text("reward: {source: null, method: sparse}")
    assert told(file=path).reward.method == "sparse"
    path.write_text("reward: {method: code}")
    assert told("reward.source=sparse", file=path).reward.method == "sparse"
    assert told("reward.source=sparse", "reward.method=code").reward.method == "code"
    assert told("reward.method=code", "reward.source=sparse").reward.method == "sparse"


def test_a_method_that_there_is_not_in_a_grid_is_said_of_the_sweep(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(f"base: {{task: {TASK}}}\nseeds: [0]\ngrid: {{reward.source: [code, sprase]}}")
    with pytest.raises(ConfigError, match=r"sweep\.yaml is wrong: grid: reward\.method: 'sprase' .* mean sparse\?"):
        sweep_of(path, [])


def test_a_tilde_is_the_home_of_its_user_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text(
        "vlm: {recording: ~/r.jsonl, model: ~/model}\nstorage: ~/copies\nrun_dir: ~/runs/a"
    )
    config = settings(TASK, None, None, Path("~/run.yaml"), [])
    assert (config.directory, config.vlm.recording) == (tmp_path / "runs/a", tmp_path / "r.jsonl")
    assert (config.vlm.model, config.storage) == (str(tmp_path / "model"), (tmp_path / "copies").as_uri())
    assert told("storage=file://~/copies").storage == config.storage
    assert told(run_dir=Path("~/b")).directory == tmp_path / "b"
    RunDirectory(told(run_dir=Path("~/b")))
    assert CliRunner().invoke(app, ["show", "~/b"]).exit_code == 0
    with pytest.raises(ConfigError, match="no user is known by the name of ~nobody-here"):
        told("vlm.recording=~nobody-here/x")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.env_stepps=1", r"there is no train\.env_stepps; did you mean train\.env_steps\?"),
        ("trian.env_steps=1", r"there is no trian; did you mean train\?"),
        ("env_steps=1", r"there is no env_steps; did you mean train\.env_steps\?"),
        ("curve_episode=1", r"there is no curve_episode; did you mean evaluation\.curve_episodes\?"),
        ("train.lerners=null", r"there is no train\.lerners; did you mean train\.learners\?"),
        ("qwertz=1", r"there is no qwertz$"),
        ("train.algorithm=pppo", r"train\.algorithm: 'pppo' is not one of ppo, appo, sac; did you mean ppo\?"),
        (
            "train.loggers=tensorbord",
            r"'tensorbord' is not one of tensorboard, wandb, mlflow; did you mean tensorboard\?",
        ),
        ("train.env_steps=many", r"train\.env_steps: 'many' should be a valid integer$"),
        ("train.env_steps=0.5", r"train\.env_steps: 0\.5 should be a valid integer"),
        ("train.env_steps=0", r"train\.env_steps: 0 should be greater than or equal to 1$"),
        ("train.env_steps=yes", r"train\.env_steps: True should be a number$"),
        ("collect.max_failed=no", r"collect\.max_failed: False should be a number$"),
        ("vlm.base_url=localhost:8000", r"vlm\.base_url: 'localhost:8000' should be a URL such as http://"),
        ("vlm.base_url=none", r"vlm\.base_url: 'none' should be a URL"),
        (".train=5", r"'\.train=5' is not of the form section\.field=value"),
        ("train=5", r"train: 5 should be a mapping"),
        ("train.rllib={training: 5}", r"train\.rllib\.training: 5 should be a mapping"),
        ("train.rllib={training: ", r"not YAML: .* in line 1, column 12$"),
        ("vlm.model.name=x", r"vlm\.model: {'name': 'x'} should be a valid string"),
    ],
)
def test_a_wrong_setting_is_one_line_that_says_what_was_meant(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        told(setting)
    assert "\n" not in str(found.value)
    assert "pydantic" not in str(found.value)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "doorkey-5x5"], "unknown task 'doorkey-5x5'; did you mean DoorKey-5x5?"),
        (["run", "tests.runs.test_pipeline:CORIDOR"], "no 'CORIDOR'; did you mean CORRIDOR?"),
        (["run", TASK, "--config", "x.yaml"], "there is no configuration x.yaml"),
    ],
)
def test_a_name_that_does_not_exist_is_answered_with_the_nearest(command: list[str], message: str) -> None:
    assert message in str(CliRunner().invoke(app, command).exception)


def test_commands_stages_and_options_that_do_not_exist_are_answered_with_the_nearest(tmp_path: Path) -> None:
    assert "Did you mean 'collect'?" in CliRunner().invoke(app, ["colect"]).output
    assert "--seed" in CliRunner().invoke(app, ["run", "x", "--sed=1"]).output
    with pytest.raises(ConfigError, match=r"no stage 'synthesise'; did you mean synthesize\?"):
        Pipeline(told(run_dir=tmp_path)).run(("synthesise",))


def test_every_command_helps_and_the_version_is_said() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"carl {__version__}\n"
    for command in ([], ["run"], ["sweep"], ["submit"], ["serve"], ["watch"]):
        assert "Usage" in CliRunner().invoke(app, [*command, "-h"]).output


@pytest.mark.parametrize("wrong", ["train.rllib={training: {lrr: 1}}", "train.rllib={training: {lr: fast}}"])
def test_settings_are_checked_before_anything_is_written(tmp_path: Path, wrong: str) -> None:
    directory = tmp_path / "run"
    for command in ("collect", "train", "report"):
        found = CliRunner().invoke(app, [command, TASK, "--run-dir", str(directory), "--set", wrong])
        assert isinstance(found.exception, CarlError), found
        assert not directory.exists()
    Pipeline(told(run_dir=directory))
    before = (directory / CONFIG).read_text()
    with pytest.raises(ConfigError):
        Pipeline(told(wrong, run_dir=directory))
    assert (directory / CONFIG).read_text() == before


def test_null_and_an_empty_mapping_clear_what_a_directory_holds(tmp_path: Path) -> None:
    first = told(
        "train.rllib={training: {lr: 1, gamma: 0.9}}", "vlm.base_url=http://x", "train.env_runners=7", run_dir=tmp_path
    )
    RunDirectory(first)
    assert told(run_dir=tmp_path) == first
    again = told("train.rllib={training: {lr: 2}}", "vlm.base_url=null", "train.env_runners=~", run_dir=tmp_path)
    assert again.train.rllib == {"training": {"lr": 2, "gamma": 0.9}}
    assert (again.vlm.base_url, again.train.env_runners) == (None, CodeConfig(task=TASK).train.env_runners)
    for cleared in ("train.rllib={}", "train.rllib=null", "train.rllib.training=", "train={}"):
        assert not told(cleared, run_dir=tmp_path).train.rllib.get("training"), cleared
    assert told("train.rllib.training.grad_clip=null", run_dir=tmp_path).train.rllib["training"]["grad_clip"] is None
    (tmp_path / "run.yaml").write_text("train:\nvlm: {base_url: }\n")
    cleared = told(file=tmp_path / "run.yaml", run_dir=tmp_path)
    assert cleared == CodeConfig(task=TASK, run_dir=tmp_path)


def test_the_directory_of_a_run_stands_for_its_task(tmp_path: Path) -> None:
    first = settings(TASK, 3, tmp_path, None, ["train.env_steps=700"])
    RunDirectory(first)
    assert settings(str(tmp_path), None, None, None, []) == first


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"train": {"env_steps": "many"}}, "train.env_steps=500"),
        ({"train": {"rllib": {"training": {"lrr": 1}}}}, "train.rllib={}"),
        ({"collect": {"randoms": 5}}, "collect.randoms=300"),
        ({"collect": {"randoms": 200}, "verify": {"min_experts": 2, "min_randoms": 500}}, "verify.min_randoms=20"),
        ({"storage": "nonsense://x"}, "storage=null"),
    ],
)
def test_a_wrong_line_in_a_directory_is_overridden(tmp_path: Path, wrong: dict[str, Any], right: str) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"task": TASK} | wrong))
    with pytest.raises(CarlError) as found:
        Pipeline(told(run_dir=tmp_path))
    assert "\n" not in str(found.value)
    Pipeline(told(right, run_dir=tmp_path))
    Pipeline(told(run_dir=tmp_path))


def test_a_part_of_the_settings_may_only_make_sense_with_the_rest(tmp_path: Path) -> None:
    RunDirectory(told("collect.randoms=20", "verify.min_randoms=20", run_dir=tmp_path))
    assert told("collect.randoms=30", run_dir=tmp_path).collect.randoms == 30
    shutil.rmtree(tmp_path)
    with pytest.raises(ConfigError, match=r"collect\.randoms \(30\) is below verify\.min_randoms \(200\)"):
        told("collect.randoms=30", run_dir=tmp_path)
