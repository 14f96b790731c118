"""What the settings of a run are: the library's defaults, then the task's, then what was given for the run."""

from typing import Any

from pydantic import ValidationError

from carl.config import RunConfig, given, merged, names, nearest, put
from carl.errors import ConfigError, TaskError, briefly
from carl.methods import Config
from carl.methods.code import CodeConfig
from carl.task import Task

OWN = ("task", "seed", "run_dir", "storage")
"""Settings that no task has a default for."""


def resolved(config: Config, task: Task) -> Config:
    """``config`` with the defaults of ``task`` in place of what was not given for it.

    A configuration that is resolved already stays as it is. Raises TaskError for defaults that are wrong, and
    ConfigError if they do not go together with what was given.
    """
    kind = type(config)
    tree = merged(task_defaults(task, kind), given(config))
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(
            f"the configuration and the defaults of task {task.name!r} do not go together: {_briefly(error, kind)}"
        ) from None


def task_defaults(task: Task, kind: type[RunConfig]) -> dict[str, Any]:
    """The defaults of ``task`` as nested settings of a configuration of class ``kind``; raises TaskError."""
    tree: dict[str, Any] = {}
    try:
        elsewhere = CodeConfig.model_fields.keys() - kind.model_fields.keys()
        for name, value in task.defaults.items():
            if name.partition(".")[0] in elsewhere:
                continue  # another method's section
            if name in OWN:
                raise ValueError(f"{name} is the run's own")
            put(tree, name, value)
        kind.model_validate({**tree, "task": task.name})
    except ValidationError as error:
        raise TaskError(f"task {task.name!r}: its defaults are wrong: {_briefly(error, kind)}") from None
    except ValueError as error:
        raise TaskError(f"task {task.name!r}: its defaults are wrong: {error}") from None
    return tree


def by_default(task: Task, kind: type[RunConfig]) -> RunConfig:
    """The configuration of class ``kind`` of a run on ``task`` for which nothing was given; raises TaskError."""
    return kind.model_validate({**task_defaults(task, kind), "task": task.name})


def _briefly(error: ValidationError, kind: type[RunConfig]) -> str:
    return briefly(error, lambda name: nearest(name, names(kind)))
