"""What the settings of a run are where library, task, file and command line say different things."""

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from carl.artefacts import CONFIG, STAGES, write_json
from carl.config import EvaluationConfig, RunConfig, TrainConfig
from carl.errors import ConfigError, TaskError
from carl.methods import ENTRY_POINT_GROUP, Method, method_of, run_config
from carl.methods.code import CodeConfig
from carl.runs.directory import read_config
from carl.runs.grid import SweepConfig
from carl.runs.pipeline import Pipeline
from carl.runs.resolve import resolved
from carl.runs.settings import settings
from carl.task import Task
from carl.tasks import get_task
from tests.fakes.corridor import CORRIDOR

SAC = {"train.algorithm": "sac", "train.env_steps": 100_000, "collect.random_cut": 2.0}
TASK = replace(CORRIDOR, name="mine", defaults=SAC)
"""Found as ``tests.runs.test_resolve:TASK``."""

NAME = "tests.runs.test_resolve:TASK"


def given(**sections: Any) -> RunConfig:
    return run_config({"task": NAME, **sections})


def test_later_wins_library_task_file_command_line(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("train: {env_steps: 7}\ncollect.experts: 9")
    config = resolved(settings(NAME, None, None, tmp_path / "run.yaml", ["collect.experts=8"]), TASK)
    assert config.train.algorithm == "sac", "the task's over the library's"
    assert (config.train.env_steps, config.collect.random_cut) == (7, 2.0), "the file's over the task's"
    assert config.collect.experts == 8, "the command line's over the file's"
    assert config.train.env_runners == TrainConfig().env_runners, "what nobody says is the library's"


@pytest.mark.parametrize("config", [given(train=TrainConfig()), given(train={}), given(train={"env_steps": None})])
def test_what_is_not_given_in_python_is_the_tasks(config: RunConfig) -> None:
    assert resolved(config, TASK).train == TrainConfig(algorithm="sac", env_steps=100_000)


def test_what_is_given_counts_though_it_is_the_librarys_default() -> None:
    assert resolved(given(train={"algorithm": "ppo"}), TASK).train.algorithm == "ppo"
    assert resolved(given(train=TrainConfig(env_steps=200_000)), TASK).train.env_steps == 200_000


def test_mappings_are_merged_and_emptied() -> None:
    task = replace(TASK, defaults={"train.rllib.training.gamma": 0.9, "train.rllib.training.lr": 1.0})
    more = {"training": {"lr": 2.0}}
    assert resolved(given(train={"rllib": more}), task).train.rllib == {"training": {"gamma": 0.9, "lr": 2.0}}
    assert resolved(given(train={"rllib": {}}), task).train.rllib == {}


def test_what_is_resolved_stays_as_it_is_whatever_the_task_says_by_then() -> None:
    config = resolved(given(), TASK)
    assert resolved(config, replace(TASK, defaults={"train.env_steps": 5})) == config


def test_where_the_environment_s_reward_is_mixed_in() -> None:
    task = get_task("UnlockPickup")
    assert resolved(RunConfig(task=task.name), task).reward.env_reward_weight == 4.0
    none = RunConfig.model_validate({"task": task.name, "reward": {"env_reward_weight": 0}})
    assert resolved(none, task).reward.env_reward_weight == 0.0


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        ({"train.env_stps": 1}, r"'mine': its defaults .* no train\.env_stps; did you mean train\.env_steps\?"),
        ({"trian.env_steps": 1}, r"'mine': its defaults .* no trian; did you mean train\?"),
        ({"train.env_steps": "many"}, r"'mine': its defaults .* train\.env_steps: 'many' should be a valid integer"),
        ({"train.algorithm": "pppo"}, r"'pppo' is not one of ppo, appo, sac; did you mean ppo\?"),
        ({"collect.random_cut": 0}, r"collect\.random_cut: 0 should be greater than 0"),
        ({"seed": 3}, r"'mine': its defaults .* seed is the run's own"),
        ({"task.x": 3}, r"'mine': its defaults .* task is the run's own"),
        ({"": 3}, r"'mine': its defaults .* '' is not the name of a setting"),
        ({"train": 3}, r"train: 3 should be a mapping"),
        ({"train": 3, "train.env_steps": 4}, r"train is not a section"),
    ],
)
def test_wrong_defaults_name_task_setting_and_what_is_near(defaults: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        resolved(given(train={"env_steps": 1}), replace(TASK, defaults=defaults))


def test_defaults_that_do_not_go_with_what_is_given_are_no_fault_of_the_task() -> None:
    task = replace(TASK, defaults={"train.algorithm": "appo"})
    with pytest.raises(ConfigError, match=r"defaults of task 'mine' .*set env_runners to 1 or more"):
        resolved(given(train={"env_runners": 0}), task)


@pytest.mark.parametrize("defaults", [["train.env_steps"], {"reward.method": "cold"}])
def test_defaults_that_are_no_settings_at_all_are_the_tasks_fault(defaults: Any) -> None:
    with pytest.raises(TaskError, match=r"'mine': its defaults are wrong: .*(mapping|did you mean code\?)"):
        resolved(given(), replace(TASK, defaults=defaults))


# Methods, which have sections of their own


class TrackConfig(RunConfig):
    """The configuration of a method that needs no episodes and no model."""

    track: EvaluationConfig = EvaluationConfig()


TRACK = Method("track", pays=False, words="a track", config=TrackConfig)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if a package brought the method TRACK."""
    brought = EntryPoints([EntryPoint("track", f"{__name__}:TRACK", ENTRY_POINT_GROUP)])
    monkeypatch.setattr("carl.methods.entry_points", lambda group: brought)
    method_of.cache_clear()
    yield
    method_of.cache_clear()


def test_a_run_has_the_sections_of_its_method_whoever_chose_it(installed: None) -> None:
    assert type(resolved(RunConfig(task=NAME), TASK)) is CodeConfig
    task = replace(TASK, defaults={"reward.method": "track", "track.episodes": 3})
    config = resolved(RunConfig(task=NAME), task)
    assert isinstance(config, TrackConfig)
    assert config.track.episodes == 3
    assert type(resolved(given(reward={"method": "sparse"}), task)) is CodeConfig
    older = replace(TASK, defaults={"reward.source": "sparse"})
    assert resolved(RunConfig(task=NAME), older).reward.method == "sparse"


def test_defaults_for_another_method_are_left_out_and_misspelt_sections_are_not(installed: None) -> None:
    config = resolved(given(reward={"method": "track"}), TASK)
    assert (type(config), config.train.env_steps) == (TrackConfig, 100_000), "collect.random_cut is of another method"
    both = replace(TASK, defaults={"track.episodes": 3, "train.env_steps": 9})
    assert resolved(given(), both).train.env_steps == 9
    with pytest.raises(TaskError, match=r"there is no tracks"):
        resolved(given(), replace(TASK, defaults={"tracks.episodes": 3}))


# Where a run is opened


def recorded(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / CONFIG).read_text())
    return found


def test_what_held_is_recorded(tmp_path: Path) -> None:
    pipeline = Pipeline(settings(NAME, None, tmp_path, None, ["train.env_steps=null"]))
    assert (pipeline.config.train.env_steps, pipeline.config.train.algorithm) == (100_000, "sac")
    train, collect = recorded(tmp_path)["train"], recorded(tmp_path)["collect"]
    assert (train["env_steps"], train["algorithm"], collect["random_cut"]) == (100_000, "sac", 2.0)
    assert recorded(tmp_path)["reward"]["env_reward_weight"] == 0.0


def older(directory: Path, **sections: Any) -> None:
    """The configuration that an older carl left of a run that is trained: null where the task decided."""
    content = CodeConfig(task=NAME, run_dir=directory).model_dump(mode="json")
    content["train"] |= {"env_steps": None, "algorithm": None} | sections.get("train", {})
    content["reward"] |= {"env_reward_weight": None}
    del content["collect"]["random_cut"]
    write_json(directory / CONFIG, content)
    write_json(directory / STAGES, {})


def test_a_directory_of_before_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older(tmp_path)
    monkeypatch.setattr("carl.runs.directory.RunDirectory.done", lambda self, stage: True)
    Pipeline(settings(NAME, None, tmp_path, None, []))
    assert recorded(tmp_path)["train"]["env_steps"] == 100_000
    older(tmp_path)
    with pytest.raises(ConfigError, match=r"env_steps=100000 there, 7 now \(train is done with it\)\. Leave"):
        Pipeline(settings(NAME, None, tmp_path, None, ["train.env_steps=7"]))


def test_what_was_recorded_holds_though_the_tasks_default_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pipeline(settings(NAME, None, tmp_path, None, []))
    monkeypatch.setattr(f"{__name__}.TASK", replace(TASK, defaults={**SAC, "train.env_steps": 5}))
    monkeypatch.setattr("carl.runs.directory.RunDirectory.done", lambda self, stage: True)
    assert Pipeline(settings(NAME, None, tmp_path, None, [])).config.train.env_steps == 100_000
    assert read_config(tmp_path).train.env_steps == 100_000


def test_every_trial_of_a_sweep_takes_the_tasks_defaults_where_neither_base_nor_grid_say_more() -> None:
    sweep = SweepConfig.model_validate(
        {"base": {"task": NAME, "train": {"env_steps": 9}}, "grid": {"train.algorithm": ["ppo", None]}, "seeds": [0]}
    )
    found = [resolved(trial.config, TASK) for trial in sweep.trials()]
    assert [config.train.algorithm for config in found] == ["ppo", "sac"]
    assert {(config.train.env_steps, config.collect.random_cut) for config in found} == {(9, 2.0)}


# Tasks of before


def test_a_task_that_an_older_carl_pickled_has_its_settings_as_defaults() -> None:
    task = Task.__new__(Task)
    rest = {name: value for name, value in vars(CORRIDOR).items() if name != "defaults"}
    task.__dict__.update(rest, random_cut=2.0, env_reward_weight=0.5, env_steps=9, algorithm="sac")
    found = pickle.loads(pickle.dumps(task))
    assert resolved(RunConfig(task="corridor"), found).train == TrainConfig(env_steps=9, algorithm="sac")
    assert (found.defaults["collect.random_cut"], found.defaults["reward.env_reward_weight"]) == (2.0, 0.5)
    assert not hasattr(found, "env_steps")


def test_a_task_of_this_version_travels_with_its_defaults() -> None:
    assert pickle.loads(pickle.dumps(TASK)).defaults == SAC
