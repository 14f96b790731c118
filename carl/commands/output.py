"""What commands print with: the terminal, standard error, and progress as bars or as lines."""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from carl.cluster.logs import structured
from carl.console.progress import LINES, MARK, Progress, silent
from carl.console.terminal import Terminal

console = Terminal()
errors = Terminal(stderr=True)


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


@contextmanager
def bars() -> Iterator[Progress]:
    """Progress as bars on standard error, or as lines where the environment asks for them; none among JSON."""
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
        with RichProgress(*columns, console=console) as progress:
            yield Bars(progress)
