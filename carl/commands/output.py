"""What commands print with: the terminal, standard error, and progress as bars, as a log or as lines."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import RenderableType
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from carl.cluster.logs import structured
from carl.console.progress import LINES, MARK, Progress, silent
from carl.console.terminal import Terminal

console = Terminal()
errors = Terminal(stderr=True)

LOG_S = 30.0
"""Seconds between two lines of a log about the same work."""

WIDE = 10_000
"""Columns of a page that is no terminal: nothing is wrapped."""


def page(content: RenderableType) -> None:
    """Print tables and code; where there is no terminal, in lines as long as they are, without blanks at their ends."""
    if console.is_terminal:
        console.print(content)
        return
    wide = Terminal(width=WIDE)
    with wide.capture() as printed:
        wide.print(content)
    console.print("\n".join(line.rstrip() for line in printed.get().splitlines()), highlight=False)


class Bars:
    """Progress bars: one line for each kind of long work."""

    def __init__(self, progress: RichProgress) -> None:
        self._progress = progress
        self._lines: dict[str, TaskID] = {}

    def __call__(self, label: str, done: float, total: float | None = None) -> None:
        """Draw the bar of ``label`` at ``done`` of ``total``."""
        if label not in self._lines:
            self._lines[label] = self._progress.add_task(label, total=total)
        self._progress.update(self._lines[label], completed=done, total=total)


class Lines:
    """Progress as lines that another carl draws: at most one a second for each kind of work."""

    def __init__(self) -> None:
        self._printed: dict[str, float] = {}

    def __call__(self, label: str, done: float, total: float | None = None) -> None:
        """Print a line, unless one for ``label`` was printed less than a second ago and the work goes on."""
        now, ended = time.monotonic(), total is not None and done >= total
        if ended or now - self._printed.get(label, -math.inf) >= 1.0:
            self._printed[label] = now
            print(MARK + json.dumps({"label": label, "done": done, "total": total}), flush=True)


class Log:
    """Progress as lines for a log that people read.

    A kind of work has a line as it begins and as it ends for the first time, and then at most one in ``LOG_S``.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._began: dict[str, float] = {}
        self._said: dict[tuple[str, bool], float] = {}

    def __call__(self, label: str, done: float, total: float | None = None) -> None:
        """Say how far ``label`` is, and for how long it has gone on, if a line is due."""
        now, ended = time.monotonic(), total is not None and done >= total
        began = self._began.setdefault(label, now)
        if ended:
            del self._began[label]
        if now - self._said.get((label, ended), -math.inf) >= LOG_S:
            self._said[label, ended] = now
            share = f" {done / total:.0%}" if total else ""
            self._say(f"{label}:{share} after {int(now - began)} s")


@contextmanager
def bars() -> Iterator[Progress]:
    """Progress on standard error: as bars on a terminal, else as a log; as lines where the environment asks for them.

    None among JSON.
    """
    if os.environ.get(LINES) or structured():
        yield Lines() if os.environ.get(LINES) else silent
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column()),  # of a narrow line, it may break
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    )
    # A descriptor of their own: standard error is hushed while Ray starts.
    with os.fdopen(os.dup(2), "w") as file:
        console = Terminal(file=file)
        if not console.is_terminal:
            yield Log(partial(console.print, highlight=False))
            return
        with RichProgress(*columns, console=console) as progress:
            yield Bars(progress)
