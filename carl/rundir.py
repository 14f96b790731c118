"""A run directory: its files, written whole or not at all, and which stages are done."""

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from carl.config import RunConfig
from carl.errors import ConfigError, ResourceError
from carl.metrics import tell

CONFIG = "config.json"
STAGES = "stages.json"

ORDER = ("collect", "synthesize", "verify", "train", "evaluate", "report")
"""The stages of a run."""

OPEN_UNTIL = {
    "collect": "collect",
    "vlm": "verify",
    "synthesis": "verify",
    "reward": "train",
    "train": "train",
    "evaluation": "evaluate",
}
"""Sections of the configuration that may still change, and the stage that settles each: what it and the
stages before it made follows from that section. All else is settled at once."""

BEAT_S = 10.0
"""Seconds between two signs of life of a stage that runs: the time at which STAGES was changed."""

_log = logging.getLogger(__name__)


class RunDirectory:
    """The artefacts of one run. Stages find what earlier ones left, so a run that was stopped goes on.

    Attributes:
        path: the directory.
        config: what the run was told; what a stage was told stays once it is done.
    """

    def __init__(self, config: RunConfig) -> None:
        """Open the directory of ``config`` or begin it; raises ConfigError if it holds another run.

        What a stage that is not done was told may change: a server that was down, say, is named anew.
        """
        self.path = config.directory
        self.config = config
        if (self.path / CONFIG).exists():
            self._check_same(read_config(self.path))
        self.write(CONFIG, config.model_dump(mode="json"))

    def _check_same(self, before: RunConfig) -> None:
        settled = {name for name in RunConfig.model_fields if name not in OPEN_UNTIL or self.done(OPEN_UNTIL[name])}
        compared = settled - {"run_dir", "storage"}  # a run may be moved
        old, new = (flat(config.model_dump(mode="json", include=compared)) for config in (before, self.config))
        differing = [
            f"{key}={old.get(key)} there, {new.get(key)} now" for key in {**old, **new} if old.get(key) != new.get(key)
        ]
        if differing:
            raise ConfigError(
                f"{self.path} holds a run that was told otherwise ({'; '.join(differing)}). "
                "Give another --run-dir, or delete that one."
            )

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def write(self, name: str, content: Any) -> None:
        """Write a JSON file atomically."""
        write_json(self.path / name, content)

    def read(self, name: str, default: Any = None) -> Any:
        """A JSON file's content; ``default`` if there is none; raises ConfigError if it is not JSON."""
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return default
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path / name} cannot be read: {error}; delete it to have it made again") from error

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds that each stage has taken, over all the times that it was started and came to an end."""
        return {name: stage["seconds"] for name, stage in self.read(STAGES, {}).items() if "seconds" in stage}

    def done(self, stage: str) -> bool:
        return bool(self.read(STAGES, {}).get(stage, {}).get("done", False))

    def _undo_after(self, name: str) -> None:
        stages = self.read(STAGES, {})
        later = ORDER[ORDER.index(name) + 1 :]
        undone = {key: _without(stage, "failed") | {"done": False} for key, stage in stages.items() if key in later}
        self.write(STAGES, stages | undone)

    @contextmanager
    def attempt(self, stage: str) -> Iterator[None]:
        """Note with what error a stage fails, and when; how it failed before is forgotten. Ctrl-C is no failure.

        Raises ResourceError in place of whatever a full disk caused.
        """
        if "failed" in self.read(STAGES, {}).get(stage, {}):
            self._note(stage, done=False)
        try:
            yield
        except Exception as error:  # whatever it is, it is noted and raised
            full = self._disk_is_full(error)
            told = full or error
            failed = {"error": type(told).__name__, "message": str(told), "time": round(time.time(), 3)}
            with suppress(ConfigError):  # what went wrong counts more than that it cannot be noted
                self._note(stage, done=False, failed=failed)
            if full:
                raise full from error
            raise

    def _disk_is_full(self, error: BaseException | None) -> ResourceError | None:
        """What to say if that is why ``error`` was raised."""
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
        """Time a stage, and mark it done if it ends without an error. Stages after it have to be done again."""
        start, done = time.monotonic(), False
        self._undo_after(name)
        self._note(name, done=False, since=round(time.time(), 3))
        tell("carl_stage_running", 1, stage=name)
        _log.info("%s begins", name, extra={"stage": name})
        over = threading.Event()
        threading.Thread(target=self._live, args=[over], name="carl-alive", daemon=True).start()
        try:
            yield
            done = True
        finally:
            over.set()
            seconds = round(time.monotonic() - start, 3)
            self._note(name, done=done, seconds=round(self.seconds.get(name, 0.0) + seconds, 3))
            tell("carl_stage_running", 0, stage=name)
            tell("carl_stage_seconds", seconds, stage=name)
            ended = "done" if done else "left undone"
            _log.info("%s is %s after %.1f s", name, ended, seconds, extra={"stage": name, "seconds": seconds})

    def _live(self, over: threading.Event) -> None:
        while not over.wait(BEAT_S):
            with suppress(OSError):
                os.utime(self.path / STAGES)

    def _note(self, name: str, *, done: bool, **more: Any) -> None:
        """Write a stage's line: ``seconds``, ``since``, the time at which it began while it runs, how it ``failed``."""
        stages = {key: _without(stage, "since") for key, stage in self.read(STAGES, {}).items()}
        self.write(STAGES, stages | {name: _without(stages.get(name, {}), "failed") | {"done": done} | more})


def read_config(path: Path) -> RunConfig:
    """The configuration of the run in a directory; raises ConfigError."""
    try:
        return RunConfig.model_validate_json((path / CONFIG).read_text()).model_copy(update={"run_dir": path})
    except FileNotFoundError:
        raise ConfigError(f"{path} holds no run: there is no {CONFIG} in it") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path / CONFIG} cannot be used: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one; raises ConfigError."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """As ``write_text``."""
    new = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(content)
        os.replace(new, path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise ConfigError(f"cannot write {path}: {error}; mend that or give another --run-dir") from error


def _without(tree: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key != name}


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested settings, by the names that ``--set`` knows them by."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves
