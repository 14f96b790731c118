"""Logging with the ids of run and program in each record: text lines, or JSON if CARL_LOG=json."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from carl.console.plain import visible

LOG = "CARL_LOG"
"""Environment variable: ``json`` makes each log record one line of JSON on standard error. Ray passes it to workers."""

PLAIN = "%(levelname)s %(name)s: %(message)s"

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

_origin: dict[str, str] = {}
# One for the process, not a context variable: threads that follow a channel or a storage log for the same run.


def about(**origin: str | None) -> None:
    """Set the ids, ``run`` and ``program``, that this process's log records and metrics carry; None removes one."""
    for key, value in origin.items():
        if value is None:
            _origin.pop(key, None)
        else:
            _origin[key] = value


def origin() -> dict[str, str]:
    """The ids that were set, by name."""
    return dict(_origin)


@contextmanager
def for_a_while(**other: str | None) -> Iterator[None]:
    """As ``about``, until the context ends."""
    before = {key: _origin.get(key) for key in other}
    about(**other)
    try:
        yield
    finally:
        about(**before)


def join(origin: Mapping[str, str]) -> None:
    """Take over the driver's ids, in a process that it started through Ray, and its format of logs."""
    about(**dict.fromkeys(_origin.keys() - origin.keys()), **origin)
    if structured():
        set_up()


def structured() -> bool:
    """Whether CARL_LOG is ``json``."""
    return os.environ.get(LOG) == "json"


def set_up() -> None:
    """Send this process's log records to standard error, unless the root logger has a handler.

    As JSON from INFO on for carl and from WARNING on for other loggers; as text from WARNING on.
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
    "SDL_AUDIODRIVER": "dummy",  # every process that renders with pygame would look for a sound card, and complain
    "PYTHONWARNINGS": "ignore",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # read when ray is imported, as the next one
    "RAY_task_oom_retries": "1",  # without it Ray repeats without end a task that was killed for its memory
}
"""Environment variables that silence libraries, also in the processes that a driver starts."""

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
"""Environment variables that name a screen. Without one, pygame would look for it in every process, and complain."""


def quiet() -> None:
    """Set up a process that drives a run: of ray, transformers and gymnasium only errors are logged."""
    off_screen = {} if any(map(os.environ.get, DISPLAYS)) else {"SDL_VIDEODRIVER": "dummy"}
    for name, value in {**QUIET, **off_screen}.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    set_up()


class Lines(logging.Formatter):
    """A record as a line of text, without control sequences."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with :func:`carl.console.plain.visible` applied."""
        return visible(super().format(record))


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, message, run and program if set, and its extras."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; what is not JSON becomes its ``str``."""
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
