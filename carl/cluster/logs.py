"""Logs with the run and the program they are about: lines for people, or JSON where CARL_LOG asks for it."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from carl.console.plain import visible

LOG = "CARL_LOG"
"""Environment variable: ``json`` makes every log record one line of JSON on standard error. Ray hands it to workers."""

PLAIN = "%(levelname)s %(name)s: %(message)s"

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

_origin: dict[str, str] = {}
# One for the process, not a context variable: threads that follow a channel or a storage log for the same run.


def about(**origin: str | None) -> None:
    """Say what this process works at from now on: ``run`` and ``program``, their ids; None for none."""
    for key, value in origin.items():
        if value is None:
            _origin.pop(key, None)
        else:
            _origin[key] = value


def origin() -> dict[str, str]:
    """What this process works at, as far as it is known."""
    return dict(_origin)


@contextmanager
def for_a_while(**other: str | None) -> Iterator[None]:
    """As ``about``, while the context lasts."""
    before = {key: _origin.get(key) for key in other}
    about(**other)
    try:
        yield
    finally:
        about(**before)


def join(origin: Mapping[str, str]) -> None:
    """Begin to work at what the driver works at, and nothing else; what it calls by Ray logs as it does."""
    about(**dict.fromkeys(_origin.keys() - origin.keys()), **origin)
    if structured():
        set_up()


def structured() -> bool:
    """Whether the environment asks for JSON."""
    return os.environ.get(LOG) == "json"


def set_up() -> None:
    """Send this process's log records to standard error, unless it sends them somewhere already.

    As JSON from INFO on for carl, and from WARNING on for all else; as lines for people from WARNING on.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if structured() else Lines(PLAIN))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if structured():
        logging.getLogger("carl").setLevel(logging.INFO)


QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # read when ray is imported, as the next one
    "RAY_task_oom_retries": "1",  # it would run a task for ever that is ended for its memory
}
"""What others are told by environment variables, in the processes that a driver starts too."""


def quiet() -> None:
    """Set up a process that drives a run; ray, transformers and gymnasium are chatty, so only our warnings pass."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    set_up()


class Lines(logging.Formatter):
    """A record as a line for people, without what would steer their terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, message, run and program where known, and its extras."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_origin,
            **{key: value for key, value in vars(record).items() if key not in _STANDARD and key[0] != "_"},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
