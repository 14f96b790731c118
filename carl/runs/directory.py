"""A run directory: its files, written whole or not at all, and which stages are done."""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from carl.artefacts import CONFIG, STAGES, read_json, write_json
from carl.cluster.metrics import record
from carl.config import RunConfig
from carl.errors import ConfigError, ResourceError, briefly
from carl.methods import config_class, run_config
from carl.nested import flat, names, nearest, renamed
from carl.runs.files import Files
from carl.runs.reader import Run
from carl.runs.stages import check_names, made, settled_by, stages_of

BEAT_S = 10.0
"""Seconds between two signs of life of a stage that runs: the time at which STAGES was changed."""

_log = logging.getLogger(__name__)


class RunDirectory:
    """The artefacts of one run. Stages find what earlier ones left, so a run that was stopped goes on.

    Attributes:
        path: the directory.
        config: what holds in the run; what held in a stage stays once it is done.
    """

    def __init__(
        self,
        config: RunConfig,
        check: Callable[[Self], None] = lambda _: None,
        default: RunConfig | None = None,
    ) -> None:
        """Open the directory of ``config`` or begin it; raises ConfigError if it holds another run, and what ``check``
        raises, before anything is written.

        The settings of a stage that is not done may change, for example the URL of a server. ``default`` has what held
        where the directory records nothing or null; None: the library's defaults.
        """
        self.path = config.directory
        self.config = config
        if (self.path / CONFIG).exists():
            self._check_same(renamed(read_json(self.path / CONFIG, dict)), default or type(config)(task=""))
        check(self)
        self.write(CONFIG, config.model_dump(mode="json"))

    def _check_same(self, before: dict[str, Any], default: RunConfig) -> None:
        """``before`` may be wrong, or of an older carl: what it lacks, or holds null for, had its default."""
        moved = {"run_dir", "storage"}  # a run may be
        new = self.config.model_dump(mode="json", exclude=moved)
        there, now = flat(_filled(before, default.model_dump(mode="json", exclude=moved))), flat(new)
        by = settled_by(self.config)
        over = {stage: self.done(stage) for stage in set(by.values())}
        settled = {key: _of(key, by) for key in {**there, **now} if there.get(key) != now.get(key)}
        differing = [
            f"{key}={there.get(key)} there, {now.get(key)} now" + (f" ({stage} is done with it)" if stage else "")
            for key, stage in settled.items()
            if stage is None or over[stage]
        ]
        if differing:
            raise ConfigError(
                f"{self.path} holds a run with other settings: {'; '.join(differing)}. "
                "Leave them as they are there, or begin a new run with another --run-dir"
            )

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def write(self, name: str, content: Any) -> None:
        """Write a JSON file atomically."""
        write_json(self.path / name, content)

    def read(self, name: str, default: Any = None) -> Any:
        """What a file holds, read and checked as ``carl.runs.files`` does; ``default`` if there is none."""
        found = Files(self.path).read(name)
        return default if found is None else found

    @property
    def run(self) -> Run:
        """The run as its files are now; what is damaged raises CarlError."""
        return Run(Files(self.path))

    def stages(self) -> dict[str, dict[str, Any]]:
        """What is noted of each stage; raises ConfigError."""
        stages: dict[str, dict[str, Any]] = self.read(STAGES, {})
        check_names(stages, self.config, str(self.path / STAGES))
        return stages

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds that each stage has taken, over all the times that it was started and came to an end."""
        return dict(self.run.took)

    def done(self, stage: str) -> bool:
        """Whether a stage came to its end, and what it made then is still there; raises CarlError for damaged files."""
        noted = self.stages().get(stage, {})
        if not noted.get("done"):
            return False
        there = made(stage, self.path, self.config)
        return there is not None and noted.get("made", there) == there

    def undo_after(self, name: str) -> None:
        """Note that the stages after one have to be done again, as it made something else."""
        stages = self.stages()
        order = [stage.name for stage in stages_of(self.config)]
        later = order[order.index(name) + 1 :]
        undone = {
            key: _without(stage, "failed") | {"done": False, "undone": True}
            for key, stage in stages.items()
            if key in later
        }
        self.write(STAGES, stages | undone)

    @contextmanager
    def attempt(self, stage: str) -> Iterator[None]:
        """Note with what error a stage fails, and when; how it failed before is forgotten. Ctrl-C is not a failure.

        Raises ResourceError in place of whatever a full disk caused.
        """
        if "failed" in self.stages().get(stage, {}):
            self._note(stage, done=False)
        try:
            yield
        except Exception as error:  # whatever it is, it is noted and raised
            full = self._disk_is_full(error)
            reason = full or error
            failed = {"error": type(reason).__name__, "message": str(reason), "time": round(time.time(), 3)}
            with suppress(ConfigError):  # what went wrong counts more than that it cannot be noted
                self._note(stage, done=False, failed=failed)
            if full:
                raise full from error
            raise

    def _disk_is_full(self, error: BaseException | None) -> ResourceError | None:
        """The error to raise in its place if ``error`` comes from a full disk, else None."""
        while error is not None:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                where = error.filename or self.path
                return ResourceError(
                    f"no space is left on the disk of {where} ({error}): make room, and the same command goes on"
                )
            error = error.__cause__ or error.__context__
        return None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage, and mark it done if it ends without an error. If it made something else than before, the stages
        after it have to be done again."""
        start, done = time.monotonic(), False
        before = self.stages().get(name, {}).get("made")
        self._note(name, done=False, since=round(time.time(), 3))
        record("carl_stage_running", 1, stage=name)
        _log.info("%s begins", name, extra={"stage": name})
        over = threading.Event()
        threading.Thread(target=self._live, args=[over], name="carl-alive", daemon=True).start()
        try:
            yield
            done = True
        finally:
            over.set()
            seconds = round(time.monotonic() - start, 3)
            there = made(name, self.path, self.config) if done else before
            if done and (there is None or there != before):
                self.undo_after(name)
            self._note(name, done=done, seconds=round(self.seconds.get(name, 0.0) + seconds, 3), made=there)
            record("carl_stage_running", 0, stage=name)
            record("carl_stage_seconds", seconds, stage=name)
            ended = "done" if done else "left undone"
            _log.info("%s is %s after %.1f s", name, ended, seconds, extra={"stage": name, "seconds": seconds})

    def _live(self, over: threading.Event) -> None:
        while not over.wait(BEAT_S):
            with suppress(OSError):
                os.utime(self.path / STAGES)

    def _note(self, name: str, *, done: bool, **more: Any) -> None:
        """Write a stage's line: ``seconds``, ``since``, the time at which it began while it runs, how it ``failed``."""
        stages = {key: _without(stage, "since") for key, stage in self.stages().items()}
        self.write(STAGES, stages | {name: _without(stages.get(name, {}), "failed", "undone") | {"done": done} | more})


def read_config(path: Path) -> RunConfig:
    """The configuration of the run in a directory; raises ConfigError."""
    if not (path / CONFIG).exists():
        raise ConfigError(f"{path} holds no run: there is no {CONFIG} in it")
    return config_of(dict(Run(Files(path)).config), str(path / CONFIG)).model_copy(update={"run_dir": path})


def config_of(tree: dict[str, Any], where: str) -> RunConfig:
    """The configuration in ``config.json``; raises ConfigError that names the file, ``where``."""
    try:
        return run_config(tree)
    except ValidationError as error:
        wrong = briefly(error, lambda name: nearest(name, names(config_class(tree))))
        raise ConfigError(
            f"{where} is not what this carl wrote: {wrong}. Correct it there, or run again with --set"
        ) from error


def _filled(before: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ``before``, section by section, with ``defaults`` for those that are missing or null."""
    filled: dict[str, Any] = {}
    for name, default in defaults.items():
        value = before.get(name)
        if isinstance(default, dict) and isinstance(value, dict):
            value = default | {key: one for key, one in value.items() if one is not None}
        filled[name] = default if value is None else value
    return filled


def _of(key: str, by: Mapping[str, str]) -> str | None:
    """The stage that settles the setting ``key``, by ``settled_by``; None if it is settled at once."""
    while key and key not in by:
        key = key.rpartition(".")[0]
    return by.get(key)


def _without(tree: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in names}
