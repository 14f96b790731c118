"""Progress of long work, told to whoever wants to draw it."""

from typing import Protocol


class Progress(Protocol):
    """Called now and then with what is being done and how far it is; ``total`` None means unknown."""

    def __call__(self, label: str, done: float, total: float | None = None) -> None: ...


def silent(label: str, done: float, total: float | None = None) -> None:
    """Tell nobody."""
