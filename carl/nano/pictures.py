"""The pictures of a request that the embedded model reads: initial and goal frames in turn, and no others."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Messages = tuple[Mapping[str, Any], ...]
"""Chat messages as ``carl.serving.prompt`` has them."""

CAPTION = re.compile(r"Picture \d+: (?P<pair>expert episode -?\d+, (?:initial|goal) frame$)?")
"""How a caption begins, right before its picture; ``pair`` is what the model was trained on."""


def readable(messages: Messages) -> Messages:
    """``messages`` without captions, and without the pictures whose captions name anything but the frames of a pair."""
    return tuple({**message, "content": [*_readable(message["content"])]} for message in messages)


def _readable(parts: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    caption = None
    for part in parts:
        before, caption = caption, CAPTION.match(part["text"]) if part["type"] == "text" else None
        strange = before is not None and before["pair"] is None
        if caption is None and not (part["type"] == "image" and strange):
            yield part
