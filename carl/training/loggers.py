"""Telling TensorBoard, Weights & Biases and MLflow what a training finds, step by step."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from carl.artefacts import write_text
from carl.config import Logger
from carl.errors import ConfigError

Log = Callable[[int, Mapping[str, float]], None]
"""Called with the environment steps so far and figures by name."""

MODULES: Mapping[Logger, str] = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
"""The module that writes for each."""

_logger = logging.getLogger(__name__)


def module_of(logger: Logger) -> Any:
    """The module that writes for ``logger``; raises ConfigError if it is not installed."""
    try:
        return import_module(MODULES[logger])
    except ImportError as error:
        raise ConfigError(
            f"train.loggers names {logger}, which is not installed ({error}): pip install 'code-as-reward[{logger}]'"
        ) from error


@contextmanager
def logging_to(loggers: Sequence[Logger], directory: Path, about: Mapping[str, Any]) -> Iterator[Log]:
    """A function that passes figures of the training in ``directory`` to all ``loggers``; one that fails is dropped.

    ``about`` is recorded with the training: its ``name``, settings and labels. Raises ConfigError where a logger cannot
    be begun.
    """
    logs: dict[Logger, Log] = {}

    def log(step: int, figures: Mapping[str, float]) -> None:
        for logger, one in list(logs.items()):
            try:
                one(step, figures)
            except Exception as error:  # whatever a tracking server does, the training is worth more
                _logger.warning("%s fails and gets no more figures: %s", logger, error)
                del logs[logger]

    with ExitStack() as held:
        for logger in loggers:
            module = module_of(logger)
            try:
                logs[logger] = held.enter_context(_OPEN[logger](module, directory, about))
            except Exception as error:  # no account, no server, no disk: each has errors of its own
                raise ConfigError(
                    f"{logger} cannot be used: {error}; set it up, or leave it out of train.loggers"
                ) from error
        yield log


@contextmanager
def _tensorboard(module: Any, directory: Path, _about: Mapping[str, Any]) -> Iterator[Log]:
    writer = module.SummaryWriter(str(directory / "tensorboard"))

    def log(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    try:
        yield log
    finally:
        _end("tensorboard", writer.close)


@contextmanager
def _wandb(module: Any, directory: Path, about: Mapping[str, Any]) -> Iterator[Log]:
    run = module.init(
        project="carl",
        name=about["name"],
        id=_id(directory / "wandb.id", lambda: uuid4().hex),
        resume="allow",
        dir=str(directory),
        config=dict(about),
    )
    # Its own steps may not go back, as those of a training do that goes on from a checkpoint.
    run.define_metric("*", step_metric="env_steps")
    try:
        yield lambda step, figures: run.log({**figures, "env_steps": step})
    finally:
        _end("wandb", run.finish)


@contextmanager
def _mlflow(module: Any, directory: Path, about: Mapping[str, Any]) -> Iterator[Log]:
    client = module.MlflowClient()

    def create() -> str:
        found = client.get_experiment_by_name("carl")
        experiment = found.experiment_id if found else client.create_experiment("carl")
        run = client.create_run(experiment, run_name=about["name"])
        for name, value in about.items():
            client.log_param(run.info.run_id, name, value)
        return str(run.info.run_id)

    run_id = _id(directory / "mlflow.id", create)

    def log(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            client.log_metric(run_id, name, value, step=step)

    try:
        yield log
    finally:
        _end("mlflow", lambda: client.set_terminated(run_id))


_OPEN = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}


def _end(logger: Logger, close: Callable[[], object]) -> None:
    try:
        close()
    except Exception as error:  # as above: the training is over, and whole
        _logger.warning("%s does not end: %s", logger, error)


def _id(path: Path, create: Callable[[], str]) -> str:
    """The id in a file, under which a resumed training goes on; made by ``create`` the first time."""
    if not path.exists():
        write_text(path, create())
    return path.read_text()
