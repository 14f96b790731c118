"""LiveModel: a model at a server. It requests until there are enough answers, and retries what may pass."""

import base64
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from carl.config import VlmConfig
from carl.errors import VlmError
from carl.seeding import Role, seed_of
from carl.task import Frame
from carl.vlm.exchange import CUT_OFF, REFUSED, STOPPED, WITHHELD, Draw, Question, Usage, png
from carl.vlm.fields import LEFT_OUT, RENAMED, fitted, refused
from carl.vlm.server import FULL, Failure, Server, failure_in

LONGEST_PAUSE_S = 30.0

_ENDS = {
    **dict.fromkeys(("length", "max_tokens", "model_length"), CUT_OFF),
    **dict.fromkeys(("content_filter", "safety", "recitation", "prohibited_content", "blocklist"), WITHHELD),
}
"""Servers' values of ``finish_reason`` that differ from an ordinary end, in lower case."""

TEXTS = ("text", "output_text")
"""Types of the parts of an answer that are its text."""

_TOO_MANY = re.compile(
    r"(?:too many|at most|up to|maximum|exceed|limit)[^.]*\b(?:images?|pictures)\b|too_many_images", re.I
)
"""A server's words for more pictures than it takes."""

_HALF = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which UTF-8 cannot encode."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    """Answers, the end of each, and the cost of all."""

    texts: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)

    def __add__(self, other: "Answered") -> "Answered":
        return Answered(self.texts + other.texts, self.ends + other.ends, self.usage + other.usage)

    def first(self, count: int) -> "Answered":
        """The first ``count`` answers, at the cost of all."""
        usage = self.usage.model_copy(update={"samples": min(count, len(self.texts))})
        return Answered(self.texts[:count], self.ends[:count], usage)


class LiveModel:
    """A model at a server. Timeouts, refused connections, 408, 409, 425, 429, 5xx and broken answers are retried.

    There are ``vlm.max_retries`` retries. A full or starting server (429, 503) is retried until ``vlm.patience_s`` has
    passed; no pause is longer than the rest of that, whatever Retry-After is. An optional field that a server refuses
    is left out of all further requests.
    """

    def __init__(self, config: VlmConfig, base_url: str) -> None:
        self._config, self._base_url = config, base_url
        self._lacks: frozenset[str] = frozenset()
        self._server = Server(config, base_url)

    def answer(self, question: Question, draw: Draw) -> Answered:
        """The answers; fewer than ``draw.n`` if the server failed after some. Raises VlmError if there are none.

        If a server returns fewer than requested, further requests, each with its own seed, get the rest.
        """
        got = Answered()
        while len(got.texts) < draw.n:
            seed = seed_of(draw.seed, Role.SYNTHESIS, got.usage.calls) if got.texts else draw.seed
            try:
                got += self._some(question, draw.model_copy(update={"n": draw.n - len(got.texts), "seed": seed}))
                self._check_texts(got)
            except VlmError as error:
                if not any(got.texts):
                    raise
                _log.warning("%d of %d answers came: %s", len(got.texts), draw.n, error)
                break
        return got.first(draw.n)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def _check_texts(self, got: Answered) -> None:
        """Raise VlmError if all answers so far are empty."""
        if any(got.texts):
            return
        [(end, _)] = Counter(got.ends).most_common(1)
        if end == CUT_OFF:
            raise VlmError(
                f"{self._where} was cut off before its answer began, after vlm.max_tokens={self._config.max_tokens} "
                "tokens of reasoning; raise vlm.max_tokens"
            )
        raise VlmError(f"{self._where} withholds its answers: its content filter objects to the request")

    def _some(self, question: Question, draw: Draw) -> Answered:
        """The answers, at least one, of one request that succeeded; raises VlmError."""
        start = time.monotonic()
        deadline = start + self._config.patience_s
        body = {"model": self._config.model, "messages": question.messages(_wire), **draw.model_dump()}
        known, attempt = self._lacks, 0
        while True:
            try:
                completion = self._server.complete(fitted(body, self._lacks))
                answered = self._read(completion, time.monotonic() - start)
            except Failure as failure:
                if self._learned(failure):
                    continue
                pause = self._pause(failure, attempt, deadline)
                if pause is None:
                    self._lacks = known  # leaving fields out was of no use
                    raise VlmError(self._explained(failure)) from failure
                time.sleep(pause)
                attempt += 1
            else:
                for name in self._lacks - known - {RENAMED}:
                    _log.warning("%s does not take %s", self._where, LEFT_OUT[name])
                return answered

    def _learned(self, failure: Failure) -> bool:
        """Whether the server refused an optional field; if so, it is left out from now on."""
        name = refused(failure.body, self._lacks) if failure.status in (400, 422) else None
        if name:
            self._lacks |= {name}
        return name is not None

    def _read(self, completion: Mapping[str, Any], seconds: float) -> Answered:
        """The answers that can be used; raises the Failure of the first if none can."""
        read: list[tuple[str, str]] = []
        failures: list[Failure] = []
        for choice in completion["choices"]:
            try:
                read.append(_answer(choice))
            except Failure as failure:
                failures.append(failure)
        if not read:
            raise failures[0]
        texts, ends = zip(*read, strict=True)
        return Answered(texts, ends, _usage(completion.get("usage"), len(texts), seconds))

    def _pause(self, failure: Failure, attempt: int, deadline: float) -> float | None:
        """Seconds until the next retry; None: no retry."""
        left = max(0.0, deadline - time.monotonic())
        again = attempt < self._config.max_retries
        if not failure.passing or not (again or failure.status in FULL):
            return None
        if failure.wait_s is not None:
            pause = max(1.0, failure.wait_s)
        else:
            pause = min(LONGEST_PAUSE_S, 2.0**attempt)
            pause = min(pause, left) if again else pause
        return pause if pause <= left else None

    @property
    def _where(self) -> str:
        return f"the VLM server at {self._base_url}"

    def _explained(self, failure: Failure) -> str:
        config, where = self._config, self._where
        match failure:
            case Failure(late=True):
                return f"{where} did not answer within {config.timeout_s:g} s; raise vlm.timeout_s or ask a faster one"
            case Failure(connected=False):
                return f"{where} cannot be reached ({failure.words}); start it, or set vlm.base_url"
            case Failure(status=400 | 413 | 422) if _TOO_MANY.search(failure.words):
                return f"{where} takes fewer pictures; lower synthesis.pictures, the most of a request ({failure})"
            case Failure(status=400 | 422):
                return f"{where} refuses the request: {failure}"
            case Failure(status=401 | 403):
                return f"{where} refuses the token; put the right one into {config.api_key_env} ({failure})"
            case Failure(status=402):
                return f"{where} wants to be paid: {failure}"
            case Failure(status=404):
                return f"{where} has no model {config.model!r}; set vlm.model or vlm.base_url ({failure})"
            case Failure(status=429, code="insufficient_quota"):
                return f"{where} gives no more today: {failure}"
            case Failure(status=429, wait_s=float(wait)) if wait > config.patience_s:
                return f"{where} asks to wait {wait:g} s, longer than vlm.patience_s={config.patience_s:g}: {failure}"
            case Failure(status=429):
                return f"{where} still turns requests away after {config.patience_s:g} s: {failure}"
            case Failure(status=None, body=None):
                return f"{where} answered {failure}"
            case _:
                return f"{where} failed: {failure}"


def _wire(frame: Frame) -> dict[str, Any]:
    """A picture as a part of a message."""
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(png(frame)).decode()}"}}


def _answer(choice: Any) -> tuple[str, str]:
    """The text of a choice and how it ended; raises Failure if there is none."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise Failure("no chat completion; is it the right address?", passing=False)
    finish = str(choice.get("finish_reason") or "stop")
    if choice.get("error") or finish == "error":
        raise failure_in(choice)
    end = _ENDS.get(finish.lower(), STOPPED)
    text = _text(message.get("content"))
    if not text.strip() and message.get("refusal"):
        return _whole(_text(message["refusal"])), REFUSED
    if not text.strip() and end == STOPPED:
        # a server may classify all as reasoning if the model never marked its end
        text = "\n".join(filter(None, (_text(message.get(key)) for key in ("reasoning_content", "reasoning"))))
        if not text.strip():
            raise Failure(f"no chat completion, for the answer is empty (finish_reason {finish!r})")
        text = f"<think>\n{text}"
    if _HALF.search(text) and end == STOPPED:
        raise Failure("no chat completion, for its text holds half a character")
    return _whole(text), end


def _text(content: Any) -> str:
    """The text of ``content``, which some servers send as a list of parts."""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        content = "".join(str(part.get("text") or "") for part in content if part.get("type") in TEXTS)
    if not isinstance(content, str | None):
        raise Failure("no chat completion; is it the right address?", passing=False)
    return content or ""


def _whole(text: str) -> str:
    return _HALF.sub("\ufffd", text)


def _usage(counted: Any, samples: int, seconds: float) -> Usage:
    tokens = counted if isinstance(counted, dict) else {}
    prompt, completion = (tokens.get(f"{kind}_tokens") for kind in ("prompt", "completion"))
    return Usage(
        calls=1,
        samples=samples,
        prompt_tokens=prompt if isinstance(prompt, int) else 0,
        completion_tokens=completion if isinstance(completion, int) else 0,
        seconds=seconds,
    )
