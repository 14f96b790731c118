"""What a method of reward design is made of: its stages, and what they work with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from carl.config import RunConfig
from carl.console.progress import Progress, silent
from carl.task import Task

Config = TypeVar("Config", bound=RunConfig)
"""The configuration of a method."""


@dataclass(frozen=True)
class Work(Generic[Config]):
    """What a stage works with: the run's task, its configuration, and its directory, where stages leave artefacts."""

    task: Task
    config: Config
    directory: Path
    progress: Progress = silent


@dataclass(frozen=True)
class Stage(Generic[Config]):
    """A stage of a run.

    Attributes:
        name: what ``stages.json``, ``carl run`` and the command line call it.
        run: does it; what an earlier attempt left in the directory is there for it to go on from. Ray runs.
        made: a short text that changes with the artefacts the stage leaves in a directory; None if they are not there.
            Raises CarlError where a file is damaged.
        settles: sections of the configuration that its artefacts follow from; once it is done they may not change.
    """

    name: str
    run: Callable[[Work[Config]], None]
    made: Callable[[Path, Config], str | None]
    settles: tuple[str, ...] = ()


Stages = tuple[Stage[Any], ...]
