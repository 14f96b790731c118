"""One request to a server with OpenAI's chat completions: its answer, or a Failure with the server's message."""

import asyncio
import json
import math
import os
import re
import threading
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from carl.cluster.network import is_loopback
from carl.config import VlmConfig
from carl.console.plain import plain

PASSING = (408, 409, 425, 429)
"""Statuses that may pass, beside 5xx."""

FULL = (429, 503)
"""Statuses of a server that is full or still starting."""

_LONGEST = 400
"""Characters of a server's message that an error repeats."""


@dataclass
class Failure(Exception):
    """A request failed.

    Attributes:
        words: the server's message, or what happened to the connection.
        status: HTTP's, or the one that an answer under status 200 names; None where there is none.
        body: the error as JSON, or its text.
        code: the error's own, such as ``insufficient_quota``.
        passing: whether a retry may succeed.
        wait_s: seconds of its Retry-After; None without one.
        late: whether there was no complete answer within ``vlm.timeout_s``.
        connected: whether there was any answer.
    """

    words: str
    status: int | None = None
    body: Any = None
    code: str = ""
    passing: bool = True
    wait_s: float | None = None
    late: bool = False
    connected: bool = True

    def __str__(self) -> str:
        return ": ".join(filter(None, (str(self.status or ""), self.words)))


class Server:
    """The connections to a server. Requests run in an event loop in its own thread, where they can be cancelled."""

    def __init__(self, config: VlmConfig, base_url: str) -> None:
        import openai

        self.url = base_url
        self._config = config
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=os.environ.get(config.api_key_env, "").strip() or "none",
            timeout=config.timeout_s,
            max_retries=0,  # retries and their pauses are the caller's
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not is_loopback(base_url)),
        )
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="carl-vlm", daemon=True).start()

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The completion as JSON, with at least one choice; raises Failure.

        The complete answer must arrive within ``vlm.timeout_s``, however slowly its bytes come.
        """
        try:
            status, headers, text = self._run(self._sent(body), self._config.timeout_s)
        except TimeoutError:
            raise Failure("no whole answer in time", late=True) from None
        value = _json(text)
        error = _error_in(value)
        if status >= 400:
            raise _failure(status, value, text, headers)
        if error:
            raise _failure(_status_in(error), value, text, headers)
        return _completion(value, text)

    def close(self) -> None:
        """Close the connections and end the event loop's thread."""
        try:
            self._run(self._client.close(), 5.0)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)

    async def _sent(self, body: dict[str, Any]) -> tuple[int, Mapping[str, str], str]:
        import openai

        try:
            raw = await self._client.chat.completions.with_raw_response.create(**body)
            response: Any = raw.http_response
        except openai.APIStatusError as error:
            response = error.response
        except openai.APITimeoutError as error:
            raise TimeoutError from error
        except openai.APIConnectionError as error:
            raise Failure(str(error.__cause__ or error), connected=False) from error
        return response.status_code, response.headers, response.text

    def _run(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, timeout_s), self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # of use when this thread is interrupted


def _json(text: str) -> Any:
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None


def _error_in(value: Any) -> Any:
    """The error object of an answer without choices, whatever its status; None if there is none."""
    if not isinstance(value, dict) or value.get("choices"):
        return None
    return value if value.get("object") == "error" else value.get("error")


def _completion(value: Any, text: str) -> dict[str, Any]:
    choices = value.get("choices") if isinstance(value, dict) else None
    if isinstance(choices, list) and choices:
        return dict(value)
    if choices == []:
        raise Failure("no chat completion, for its list of choices is empty")
    # half a JSON was whole when it was sent; a page, or JSON of another kind, is what is there
    cut = value is None and text.lstrip()[:1] in ("{", "[", "")
    raise Failure(
        f"no chat completion ({message_of(value, text) or 'nothing at all'}); is it the right address?", passing=cut
    )


def _failure(status: int | None, value: Any, text: str, headers: Mapping[str, str]) -> Failure:
    error = value.get("error", value) if isinstance(value, dict) else value
    code = str(error.get("code") or error.get("type") or "") if isinstance(error, dict) else ""
    passing = status is None or status in PASSING or status >= 500
    if headers.get("x-should-retry") == "false" or "insufficient_quota" in code:
        passing = False  # money or a budget is used up, for hours
    words = message_of(value, text)
    return Failure(words, status, words if value is None else value, code, passing, _wait(headers))


def failure_in(choice: Mapping[str, Any]) -> Failure:
    """The failure that one choice of an answer reports."""
    error = choice.get("error") or "the answer ended in an error, without a message"
    return _failure(_status_in(error), {"error": error}, "", {})


def _status_in(error: Any) -> int | None:
    """The status that an error names inside an answer of status 200."""
    codes = [str(error.get(key)) for key in ("code", "status", "status_code")] if isinstance(error, dict) else []
    return next((int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)), None)


def message_of(value: Any, text: str) -> str:
    """The message of an answer: an error's texts, or the text of a page, on one line."""
    words = "; ".join(dict.fromkeys(_messages(value)))
    return plain(words or re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL))[:_LONGEST]


def _messages(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, list):
        return [message for each in value for message in _messages(each)]
    if not isinstance(value, dict):
        return []
    where = " ".join(map(str, value["loc"])) + ": " if isinstance(value.get("loc"), list) else ""
    inner = [value.get(key) for key in ("error", "message", "detail", "msg", "error_description", "metadata", "raw")]
    return [where + message for each in inner for message in _messages(each)]


def _wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that ``Retry-After`` asks for, given as a number or as a date."""
    asked = headers.get("retry-after", "")
    try:
        seconds = float(asked)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(asked).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
