"""Terminal: a console that prints names and messages literally."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from carl.console.plain import visible


class Terminal(Console):
    """rich's console without markup, emoji codes and control characters in strings.

    ``[red]`` in the name of a sub-task is text, and ``[/]`` no error.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "soft_wrap": True} | options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """rich's segments; those of text pass :func:`carl.console.plain.visible`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
