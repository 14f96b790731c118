"""What the settings of a run are: the library's defaults, then the task's, then what was given for the run."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from carl.config import RunConfig
from carl.errors import ConfigError, TaskError, briefly
from carl.methods import Config, config_class, method_names, method_of
from carl.nested import given, merged, names, nearest, put, renamed
from carl.task import Task

OWN = ("task", "seed", "run_dir", "storage")
"""Settings that no task has a default for."""


def resolved(config: RunConfig, task: Task) -> RunConfig:
    """``config`` with the defaults of ``task`` in place of what was not given for it, in the class of its method.

    A configuration that is resolved already stays as it is. Raises TaskError for defaults that are wrong, and
    ConfigError if they do not go together with what was given.
    """
    own = given(config)
    kind = config_class(own) if "method" in own.get("reward", {}) else _class_of(task)
    tree = merged(task_defaults(task, kind), own)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(
            f"the configuration and the defaults of task {task.name!r} do not go together: {_briefly(error, kind)}"
        ) from None


def task_defaults(task: Task, kind: type[RunConfig]) -> dict[str, Any]:
    """The defaults of ``task`` as nested settings of a configuration of class ``kind``, without those of sections that
    other methods have; raises TaskError.
    """
    tree = {name: value for name, value in _tree(task).items() if name in kind.model_fields or not _of_a_method(name)}
    try:
        kind.model_validate({**tree, "task": task.name})
    except ValidationError as error:
        raise _wrong(task, _briefly(error, kind)) from None
    return tree


def by_default(task: Task, kind: type[Config]) -> Config:
    """The configuration of class ``kind`` of a run on ``task`` for which nothing was given; raises TaskError."""
    return kind.model_validate({**task_defaults(task, kind), "task": task.name})


def _class_of(task: Task) -> type[RunConfig]:
    """The class of the configuration of the method that ``task`` is for: the library's unless it names another."""
    try:
        return config_class(_tree(task))
    except ConfigError as error:
        raise _wrong(task, error) from None


def _tree(task: Task) -> dict[str, Any]:
    said = {"camera_varies": task.camera_varies, "idle": [*task.idle]}
    tree: dict[str, Any] = {"verify": {name: value for name, value in said.items() if value}}
    if not isinstance(task.defaults, Mapping):
        raise _wrong(task, "they should be a mapping, as {'train.env_steps': 60_000}")
    for name, value in task.defaults.items():
        try:
            section, *_ = parts = str(name).split(".")
            if not all(parts):
                raise ValueError(f"{name!r} is not the name of a setting")
            if section in OWN:
                raise ValueError(f"{section} is the run's own")
            put(tree, str(name), value)
        except ValueError as error:
            raise _wrong(task, error) from None
    return renamed(tree)


def _of_a_method(section: str) -> bool:
    return any(section in method_of(name).config.model_fields for name in method_names())


def _wrong(task: Task, what: object) -> TaskError:
    return TaskError(f"task {task.name!r}: its defaults are wrong: {what}")


def _briefly(error: ValidationError, kind: type[RunConfig]) -> str:
    return briefly(error, lambda name: nearest(name, names(kind)))
