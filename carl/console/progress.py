"""Progress of long work, told to whoever wants to draw it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINES = "CARL_PROGRESS_LINES"
"""Environment variable: if it is set, progress is printed as lines for a program to read."""

MARK = "@carl "
"""What such a line begins with; JSON follows: label, done and total."""


class Progress(Protocol):
    """Called now and then with what is being done and how far it is; ``total`` None means unknown."""

    def __call__(self, label: str, done: float, total: float | None = None) -> None: ...


@contextmanager
def working(progress: Progress, label: str) -> Iterator[None]:
    """Tell that something of unknown length goes on, and its end."""
    progress(label, 0)
    yield
    progress(label, 1, 1)


def silent(label: str, done: float, total: float | None = None) -> None:
    """Tell nobody."""
