"""Prompts and completions as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Messages = tuple[Mapping[str, Any], ...]
"""Chat messages as transformers' chat templates take them: ``{"role", "content": [parts]}``, a part being
``{"type": "text", "text": str}`` or ``{"type": "image", "image": PIL.Image in RGB}``."""


@dataclass(frozen=True)
class Sampling:
    """How one answer is sampled.

    Attributes:
        temperature: 0 takes the likeliest token each time.
        top_p: nucleus sampling keeps the fewest tokens whose probabilities reach this.
        max_tokens: length of the longest answer.
        stop: strings at which an answer ends; they are cut off.
        seed: entropy of the draws; None differs each time.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    seed: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Prompt:
    """One conversation to be answered once."""

    messages: Messages
    sampling: Sampling

    @property
    def has_images(self) -> bool:
        """Whether any message holds a picture."""
        return any(part["type"] == "image" for message in self.messages for part in message["content"])


@dataclass(frozen=True)
class Completion:
    """One answer. ``finish_reason`` is "stop" (the model or a stop string ended it) or "length"."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class PromptError(ValueError):
    """The model cannot take a prompt: it is too long, or the chat template refuses it."""
