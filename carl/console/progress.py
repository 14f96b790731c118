"""Progress of long work, reported to a callable that draws or prints it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINES = "CARL_PROGRESS_LINES"
"""Environment variable: if it is set, progress is printed as lines for a program to read."""

MARK = "@carl "
"""Prefix of such a line; JSON follows: label, done and total."""


class Progress(Protocol):
    """A callable that is called repeatedly while work goes on."""

    def __call__(self, label: str, done: float, total: float | None = None) -> None:
        """Report that ``done`` of ``total`` units of the work named ``label`` are done; ``total`` None is unknown."""


@contextmanager
def working(progress: Progress, label: str) -> Iterator[None]:
    """Report the begin and the end of work of unknown length; if it raises, there is no end."""
    progress(label, 0)
    yield
    progress(label, 1, 1)


def silent(label: str, done: float, total: float | None = None) -> None:
    """The Progress that reports to nobody."""
