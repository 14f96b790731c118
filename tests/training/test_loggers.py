import sys
from collections import defaultdict
from types import ModuleType, SimpleNamespace

import pytest

from carl.cli import settings
from carl.errors import ConfigError
from carl.methods.arms import arm_of
from carl.runs.pipeline import Pipeline
from carl.runs.stages import training as training_of
from carl.training.loggers import logging_to

ABOUT = {"name": "corridor-3-code", "task": "corridor", "seed": 3}


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in that keeps what it is told, by id."""
    fake = ModuleType("wandb")
    fake.told, fake.finished = defaultdict(list), []

    def init(**settings):
        run = SimpleNamespace(settings=settings, define_metric=lambda *a, **k: None)
        run.log = lambda figures: fake.told[settings["id"]].append(figures)
        run.finish = lambda: fake.finished.append(settings)
        return run

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def mlflow(monkeypatch):
    """A stand-in that keeps metrics by run."""
    fake = ModuleType("mlflow")
    fake.told, fake.params, fake.ended = defaultdict(list), {}, []

    class MlflowClient:
        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            return "7"

        def create_run(self, experiment, run_name):
            return SimpleNamespace(info=SimpleNamespace(run_id=f"{experiment}-{run_name}"))

        def log_param(self, run, name, value):
            fake.params[name] = value

        def log_metric(self, run, name, value, step):
            fake.told[run].append((name, value, step))

        def set_terminated(self, run):
            fake.ended.append(run)

    fake.MlflowClient = MlflowClient
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def test_tensorboard_finds_what_was_logged(tmp_path):
    with logging_to(("tensorboard",), tmp_path, ABOUT) as log:
        log(2_048, {"curve/success_rate": 0.25})
        log(4_096, {"curve/success_rate": 1.0})
    assert scalars(tmp_path / "tensorboard") == [
        ("curve/success_rate", 2_048, 0.25),
        ("curve/success_rate", 4_096, 1.0),
    ]


def scalars(directory) -> list[tuple[str, int, float]]:
    """What an event file holds: records of a length, its checksum, the event and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = directory.iterdir()
    content, found = path.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        content = content[16 + length :]
    return found


def test_wandb_is_told_and_goes_on_in_the_same_run(tmp_path, wandb):
    for step in (100, 200):
        with logging_to(("wandb",), tmp_path, ABOUT) as log:
            log(step, {"curve/success_rate": 0.5})
    ((id_, told),) = wandb.told.items()
    assert told == [{"curve/success_rate": 0.5, "env_steps": step} for step in (100, 200)]
    assert [run["id"] for run in wandb.finished] == [id_, id_]
    assert wandb.finished[0]["config"] == ABOUT


def test_mlflow_is_told_and_goes_on_in_the_same_run(tmp_path, mlflow):
    for step in (100, 200):
        with logging_to(("mlflow",), tmp_path, ABOUT) as log:
            log(step, {"curve/success_rate": 0.5})
    assert mlflow.told == {"7-corridor-3-code": [("curve/success_rate", 0.5, step) for step in (100, 200)]}
    assert mlflow.params == ABOUT
    assert mlflow.ended == ["7-corridor-3-code"] * 2


def test_a_logger_that_fails_is_told_no_more(tmp_path, mlflow, wandb, monkeypatch, caplog):
    def down(*args, **kwargs):
        raise OSError("no server")

    monkeypatch.setattr(mlflow.MlflowClient, "log_metric", down)
    with logging_to(("mlflow", "wandb"), tmp_path, ABOUT) as log:
        log(1, {"x": 1.0})
        log(2, {"x": 2.0})
    assert caplog.text.count("mlflow fails and gets no more figures: no server") == 1
    assert [len(told) for told in wandb.told.values()] == [2]


def test_one_that_cannot_begin_is_a_line(tmp_path, wandb, monkeypatch):
    def no_account(**settings):
        raise RuntimeError("no API key")

    monkeypatch.setattr(wandb, "init", no_account)
    with pytest.raises(ConfigError, match="wandb cannot be used: no API key"), logging_to(("wandb",), tmp_path, ABOUT):
        pass


def test_they_are_told_all_settings_of_the_run(tmp_path):
    pipeline = Pipeline(settings("Empty-8x8", 3, tmp_path, None, ["train.rllib={training: {lr: 0.1}}"]))
    with training_of(pipeline.work, arm_of("sparse")) as training:
        told = training.about
    assert told["name"] == "Empty-8x8-3-sparse"
    assert (told["seed"], told["algorithm"], told["train.env_runners"]) == (3, "ppo", 2)
    assert told["train.rllib.training.lr"] == 0.1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.loggers=[wandb]", r"pip install 'code-as-reward\[wandb\]'"),
        ("train.rllib={training: {lrr: 1}}", "no lrr; did you mean lr"),
    ],
)
def test_what_only_the_training_would_notice_is_said_before_anything_is_written(
    tmp_path, monkeypatch, setting, message
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=message):
        Pipeline(settings("Empty-8x8", 0, tmp_path / "run", None, [setting]))
    assert not (tmp_path / "run").exists()
