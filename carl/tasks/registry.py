"""Tasks found by name."""

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

import gymnasium as gym

from carl.errors import TaskError, briefly, did_you_mean
from carl.task import Task
from carl.tasks.builtin import BUILT_IN

ENTRY_POINT_GROUP = "carl.tasks"

GYMNASIUM = "1.2."
"""The releases of gymnasium that carl runs with; Ray 2.60 pins 1.2.2."""


@cache
def tasks() -> Mapping[str, Task]:
    """All tasks by name: the built-in ones and those of installed packages.

    A package adds tasks with an entry point in the group ``carl.tasks`` that names a Task or an iterable of them.
    """
    found = {task.name: task for task in BUILT_IN}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        loaded = _loaded(entry_point)
        for task in [loaded] if isinstance(loaded, Task) else loaded:
            if task.name in found:
                raise TaskError(f"two tasks are called {task.name!r}; the second comes from {entry_point.value}")
            found[task.name] = task
    return found


def _loaded(entry_point: EntryPoint) -> Task | Iterable[Task]:
    try:
        loaded: Task | Iterable[Task] = entry_point.load()
    except Exception as error:  # importing a package runs its code
        raise TaskError(
            f"cannot import the tasks of {entry_point.value}, which an installed package registers: "
            f"{type(error).__name__}: {briefly(error)}"
        ) from error
    return loaded


def get_task(name: str) -> Task:
    """The task called ``name``, or ``module:attribute`` for one that no package registered; raises TaskError.

    TaskError as well where gymnasium is another than Ray's: what trains there is not what was tested.
    """
    if not gym.__version__.startswith(GYMNASIUM):
        raise TaskError(
            f"gymnasium {gym.__version__} is installed, and Ray needs {GYMNASIUM}*: a package that needs another "
            "cannot be used beside it. Take a release of that package from before, and pip install 'gymnasium==1.2.2'"
        )
    if ":" in name:
        return _import_task(name)
    try:
        return tasks()[name]
    except KeyError:
        near, known = did_you_mean(name, tasks()), ", ".join(sorted(tasks()))
        raise TaskError(
            f"unknown task {name!r}{near or ';'} there are: {known}. Or name yours as module:attribute."
        ) from None


def _import_task(reference: str) -> Task:
    """The Task at ``module:attribute``; raises TaskError."""
    name, _, attribute = reference.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does; a console script would not find a file that lies here
    module = _import_module(name, reference)
    if not hasattr(module, attribute):
        near = did_you_mean(attribute, [name for name, value in vars(module).items() if isinstance(value, Task)])
        raise TaskError(f"cannot import the task {reference!r}: {name} has no {attribute!r}{near}")
    task = getattr(module, attribute)
    if not isinstance(task, Task):
        raise TaskError(f"{reference!r} is a {type(task).__name__}, not a carl.task.Task")
    return task


def _import_module(name: str, reference: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        cure = "install its package, or run carl where the file lies"
        if (error.name or "").partition(".")[0] == "gymnasium":
            cure = f"a package that needs a newer gymnasium than {gym.__version__} cannot be used, as Ray pins that one"
        raise TaskError(f"cannot import the task {reference!r}: {error}; {cure}") from error
    except Exception as error:  # importing a module runs its code
        raise TaskError(f"cannot import the task {reference!r}: {type(error).__name__}: {briefly(error)}") from error
