"""A sweep as people write it: what its runs share, what they differ in, and the runs that this means."""

import re
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from carl.config import LocalPath, RunConfig, Section, StorageUri, below
from carl.errors import ConfigError, briefly
from carl.methods import run_config
from carl.nested import flat, name_of_today, names, nearest, put, renamed


def _base(tree: Any) -> Any:
    return run_config(tree) if isinstance(tree, dict) else tree


class SweepConfig(Section):
    """Runs that differ in a few settings and in their seed."""

    base: Annotated[SerializeAsAny[RunConfig], BeforeValidator(_base)] = Field(description="What the runs share.")
    grid: dict[str, tuple[Any, ...]] = Field(
        default={}, description="Values of fields, as section.field: [value, ...]; every combination is a setting."
    )
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1, description="Every setting runs on each.")
    max_concurrent: int = Field(default=1, ge=1, description="Runs at a time; the cluster has to have room for them.")
    directory: LocalPath | None = Field(
        default=None, description="Where runs, table and plot go; none: runs/sweep-<task>."
    )
    storage: StorageUri | None = Field(
        default=None, description="pyarrow.fs URI that they are copied to, and that runs which are not here go on from."
    )

    @field_validator("grid", mode="before")
    @classmethod
    def fields_by_full_name(cls, grid: Any) -> Any:
        """``{train: {lr: [1, 2]}}`` means ``{train.lr: [1, 2]}``."""
        return flat(grid) if isinstance(grid, dict) else grid

    @model_validator(mode="after")
    def every_run_is_one(self) -> Self:
        """Raise ValueError if two runs of the sweep would be the same, or a run's settings are wrong."""
        for field in ("seed", "run_dir", "storage"):
            if field in self.grid or field in self.base.model_fields_set:
                raise ValueError(f"{field} is the sweep's own: set seeds, directory or storage")
        try:
            found = [trial.setting for trial in self.trials() if trial.config.seed == self.seeds[0]]
        except (ValidationError, ConfigError) as error:
            raise ValueError(f"grid: {briefly(error, lambda name: nearest(name, names(type(self.base))))}") from None
        if len(set(found)) < len(found) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("grid or seeds hold the same value twice")
        return self

    def trials(self) -> "list[Trial]":
        """All runs, setting by setting; raises ValidationError, which names the field, for a value that is wrong."""
        base = self.base.model_dump(mode="json", exclude_unset=True)
        return [
            Trial.of(base, dict(zip(self.grid, values, strict=True)), seed, self.path, self.storage)
            for values in product(*self.grid.values())
            for seed in self.seeds
        ]

    @property
    def path(self) -> Path:
        """The sweep's directory: ``directory``, else ``runs/sweep-<task>``."""
        return self.directory or Path("runs") / f"sweep-{self.base.task.replace(':', '.')}"


class Trial(NamedTuple):
    """One run of a sweep, and the name of its setting."""

    setting: str
    config: RunConfig

    @classmethod
    def of(cls, base: dict[str, Any], values: dict[str, Any], seed: int, directory: Path, storage: str | None) -> Self:
        """The run of the settings ``base`` with ``values`` (by dotted names) and a seed, in a folder named for both."""
        tree = deepcopy(base)
        for key, value in values.items():
            put(tree, name_of_today(key), value)
            tree = renamed(tree)
        setting = " ".join(f"{key}={value}" for key, value in values.items()) or "base"
        folder = f"{re.sub(r'[^A-Za-z0-9=.+_-]+', '_', setting)}-seed-{seed}"
        own = {"seed": seed, "run_dir": directory / folder, "storage": below(storage, folder) if storage else None}
        return cls(setting, run_config(tree | own))
