"""Every exchange with a VLM as a record, and recordings that replace the model."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from carl.artefacts import EXCHANGES, remedy
from carl.errors import StoreError, briefly
from carl.task import Frame


class Usage(BaseModel):
    """The cost of requests: calls, ``samples`` (answers, several per call), tokens, and seconds of waiting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int = 0
    samples: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Self) -> Self:
        mine, theirs = self.model_dump(), other.model_dump()
        return type(self)(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True, eq=False)
class Question:
    """A request's content: the prompt's name and version, its texts, and the frames, which come before the user text.

    Attributes:
        frames: each ``uint8[H, W, 3]``.
        captions: what each frame shows, which comes right before it, after its number from 1; empty: no frame has one.
    """

    prompt: str
    system: str
    user: str
    frames: tuple[Frame, ...]
    captions: tuple[str, ...] = ()

    def enlarged(self, min_px: int) -> Self:
        """The question with frames enlarged by a whole factor, to at least ``min_px`` pixels on the shorter side."""
        return replace(self, frames=tuple(_enlarged(frame, min_px) for frame in self.frames))

    def messages(self, picture: Callable[[Frame], dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        """The conversation, with the parts that ``picture`` makes of frames: their SHA-256, as it is recorded."""
        picture = picture or (lambda frame: {"type": "image", "sha256": sha256(frame)})
        parts: list[dict[str, Any]] = []
        for number, (frame, caption) in enumerate(zip_longest(self.frames, self.captions), 1):
            parts += [{"type": "text", "text": f"Picture {number}: {caption}"}] if caption else []
            parts.append(picture(frame))
        return [
            {"role": "system", "content": self.system},
            {"role": "user", "content": [*parts, {"type": "text", "text": self.user}]},
        ]


class Draw(BaseModel):
    """How answers are sampled. The seed distinguishes requests that are otherwise equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    temperature: float
    max_tokens: int
    seed: int


STOPPED, CUT_OFF, WITHHELD, REFUSED = "stop", "length", "content_filter", "refusal"
"""How an answer ended: by itself, at vlm.max_tokens, by the server's content filter, or as a refusal."""


class Exchange(BaseModel):
    """One request and its answers, or its error.

    Attributes:
        ends: how each answer ended; empty in older recordings, where all count as ``STOPPED``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    model: str
    prompt: str
    messages: tuple[Mapping[str, Any], ...]
    draw: Draw
    answers: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    usage: Usage = Usage()
    error: str | None = None


def digest(model: str, question: Question, draw: Draw) -> str:
    """SHA-256 of a request's content, in hexadecimal: equal digests are equal requests."""
    content = [model, question.prompt, question.messages(), draw.model_dump()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256(frame: Frame) -> str:
    """SHA-256 of a frame's shape and pixels, in hexadecimal."""
    return hashlib.sha256(repr(frame.shape).encode() + np.ascontiguousarray(frame).tobytes()).hexdigest()


def png(frame: Frame) -> bytes:
    """A frame ``uint8[H, W, 3]`` as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return buffer.getvalue()


def scale(shape: Sequence[int], min_px: int) -> int:
    """The whole factor that makes the shorter side of a frame of ``shape`` (H, W, ...) at least ``min_px`` pixels."""
    return max(1, -(-min_px // min(shape[:2])))


def _enlarged(frame: Frame, min_px: int) -> Frame:
    factor = scale(frame.shape, min_px)
    return frame.repeat(factor, axis=0).repeat(factor, axis=1)


class Recording:
    """Exchanges in a JSONL file, pictures as PNG files in ``images/`` beside it.

    A last line without its line end is an exchange that was cut off when the run stopped; it is removed.
    Raises StoreError if any other line cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answered: dict[str, Exchange] = {}
        if path.exists():
            self._read()

    @classmethod
    def existing(cls, path: Path) -> Self:
        """The recording at ``path``; raises StoreError if there is none."""
        if not path.is_file():
            raise StoreError(f"there is no recording at {path}")
        return cls(path)

    def find(self, digest: str) -> Exchange | None:
        """The answered exchange with this digest, else None; failed ones are not returned."""
        return self._answered.get(digest)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The names and versions of the prompts that were answered, in order of the alphabet."""
        return tuple(sorted({each.prompt for each in self._answered.values()}))

    def add(self, exchange: Exchange, frames: Sequence[Frame]) -> None:
        """Append an exchange and its pictures; both are on disk (fsync) before this returns."""
        images = self.path.parent / "images"
        images.mkdir(parents=True, exist_ok=True)
        for frame in frames:
            _write_once(images / f"{sha256(frame)}.png", frame)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(exchange.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._keep(exchange)

    def _keep(self, exchange: Exchange) -> None:
        if exchange.error is None:
            self._answered[exchange.digest] = exchange

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                self._keep(Exchange.model_validate_json(line))
            except ValidationError as error:
                raise StoreError(
                    f"{self.path}, line {number}, is not an exchange that this carl recorded ({briefly(error)}): "
                    f"{remedy(EXCHANGES)}"
                ) from error


def _write_once(path: Path, frame: Frame) -> None:
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_bytes(png(frame))
        part.replace(path)
