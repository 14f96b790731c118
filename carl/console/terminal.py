"""Terminal: a console on which names and messages are shown as they are, whatever they hold."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from carl.console.plain import visible


class Terminal(Console):
    """rich's console without markup and emoji codes in strings, and without the control characters of what it shows.

    ``[red]`` in the name of a sub-task is text, and ``[/]`` no error.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "soft_wrap": True} | options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
