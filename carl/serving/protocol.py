"""OpenAI's chat completions: parsing of requests, building of answers and errors."""

import base64
import binascii
import io
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carl.serving.prompt import Completion, Messages, Prompt, Sampling

MAX_PIXELS = 16 * 1024 * 1024
"""Largest image, in pixels."""

MAX_SAMPLES = 128
"""Most answers of one request, as in OpenAI's own API."""

MAX_STOPS = 4
"""Most texts at which an answer ends, as in OpenAI's own API."""

PIXELS_PER_TOKEN, CHARACTERS_PER_TOKEN = 28 * 28, 4
"""Qwen2-VL's; other models are of that order."""

MOST_CHARACTERS_PER_TOKEN = 16
"""Text is refused unread when each token of the model's context would have to hold more: four times the usual."""

ASKS_FOR_TEXT: Mapping[str, Sequence[Any]] = {
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    **dict.fromkeys(("stream", "tools", "functions", "audio", "logit_bias"), ()),
    **dict.fromkeys(("logprobs", "top_logprobs", "prompt_logprobs", "echo"), ()),
    # vLLM's and SGLang's ways of asking for JSON, a regular expression or a grammar
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs"), ()),
    **dict.fromkeys(("json_schema", "regex", "ebnf"), ()),
}
"""Parameters that would change the answer's form, and the values that mean plain text. With any other value except
null, false, 0 and empty ones a request is refused, since an answer that ignores it would be another one."""


@dataclass(frozen=True)
class RequestLimits:
    """Limits on the sum over all parts of one request.

    Attributes:
        images: pictures.
        pixels: pixels of them together, by their headers.
        context: tokens of prompt and answer that the model takes; None if unknown: then the model checks it.
    """

    images: int = 64
    pixels: int = 4 * MAX_PIXELS
    context: int | None = None


_ERROR_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
LONGEST_RETRY_S = 60
"""Seconds; OpenAI's clients ignore a longer Retry-After and retry at once."""


class ApiError(Exception):
    """An error response: HTTP status, OpenAI's error object, and the seconds after which to retry."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, retry_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_s = status, code, param, retry_s

    @property
    def too_large(self) -> bool:
        """Whether the request was refused for its size."""
        return self.status == 413 or self.code == "context_length_exceeded"

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = _ERROR_TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """``retry-after`` and ``x-should-retry`` if ``retry_s`` is set; the latter is false above LONGEST_RETRY_S."""
        if self.retry_s is None:
            return {}
        return {"retry-after": str(self.retry_s), "x-should-retry": str(self.retry_s <= LONGEST_RETRY_S).lower()}


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class TextPart(_Lenient):
    """A part of a message that is text."""

    type: Literal["text"]
    text: str


class ImageUrl(_Lenient):
    """A picture as a ``data:`` URL."""

    url: str


class ImagePart(_Lenient):
    """A part of a message that is a picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(_Lenient):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[Part, ...]


class ChatRequest(_Lenient):
    """The fields of a chat completion request that this server uses; others are ignored."""

    model: str
    messages: tuple[Message, ...] = Field(min_length=1)
    n: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    temperature: float = Field(default=1.0, ge=0.0, le=2.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None
    stop: str | Annotated[tuple[str, ...], Field(max_length=MAX_STOPS)] | None = None


def parse_request(
    body: bytes, default_max_tokens: int, limits: RequestLimits = RequestLimits()
) -> tuple[str, list[Prompt]]:
    """The model's name, and one prompt per answer, whose pictures are not yet ``decoded``; raises ApiError."""
    request = _validated(body)
    _check_count(request, limits)
    messages = tuple(_message(message) for message in request.messages)
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    _check_size(messages, stop, limits)
    prompts = [
        Prompt(
            messages,
            Sampling(
                temperature=request.temperature,
                top_p=request.top_p,
                max_tokens=request.max_completion_tokens or request.max_tokens or default_max_tokens,
                stop=tuple(text for text in stop if text),
                seed=None if request.seed is None else (request.seed & 0xFFFFFFFFFFFFFFFF, index),
            ),
        )
        for index in range(request.n)
    ]
    return request.model, prompts


def _check_count(request: ChatRequest, limits: RequestLimits) -> None:
    parts = [part for message in request.messages if not isinstance(message.content, str) for part in message.content]
    count = sum(isinstance(part, ImagePart) for part in parts)
    if count > limits.images:
        raise ApiError(413, f"{count} images in a request; at most {limits.images} pass", "too_many_images")


def _check_size(messages: Messages, stop: Sequence[str], limits: RequestLimits) -> None:
    """Raise ApiError(413) for pictures that are too large, and ApiError(400) for more text than the model takes."""
    pixels, characters = _pixels(messages), _characters(messages) + sum(map(len, stop))
    if pixels > limits.pixels:
        raise ApiError(413, f"images of {pixels} pixels in a request; at most {limits.pixels} pass", "image_too_large")
    if limits.context is not None and characters > MOST_CHARACTERS_PER_TOKEN * limits.context:
        message = f"{characters} characters are more than the model's {limits.context} tokens can hold"
        raise ApiError(400, message, "context_length_exceeded", "messages")


def decoded(prompts: Sequence[Prompt]) -> list[Prompt]:
    """``prompts`` of one request with their pictures read, as RGB, once for all of them; raises ApiError."""
    messages = tuple(
        {**message, "content": [_decoded(part) for part in message["content"]]} for message in prompts[0].messages
    )
    return [replace(prompt, messages=messages) for prompt in prompts]


def _decoded(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] != "image":
        return part
    with _image_errors():
        return {**part, "image": part["image"].convert("RGB")}


def _pixels(messages: Messages) -> int:
    pictures = [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]
    return sum(picture.width * picture.height for picture in pictures)


def _characters(messages: Messages) -> int:
    return sum(len(part["text"]) for message in messages for part in message["content"] if part["type"] == "text")


def most_tokens(prompts: Sequence[Prompt]) -> int:
    """An upper estimate of a request's tokens: its prompt, counted once and estimated, and its longest answers."""
    messages = prompts[0].messages
    asked = _pixels(messages) // PIXELS_PER_TOKEN + _characters(messages) // CHARACTERS_PER_TOKEN
    return asked + sum(prompt.sampling.max_tokens for prompt in prompts)


def _validated(body: bytes) -> ChatRequest:
    from pydantic_core import from_json

    try:
        values = from_json(body)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ApiError(400, "the body is not a JSON object")
    for name, harmless in ASKS_FOR_TEXT.items():
        if values.get(name) and values[name] not in harmless:
            raise ApiError(400, f"{name!r} is not supported by this server", "unsupported_parameter", name)
    try:
        return ChatRequest.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise ApiError(400, f"{where}: {first['msg']}", "invalid_value", where) from error


def _message(message: Message) -> dict[str, Any]:
    parts = (TextPart(type="text", text=message.content),) if isinstance(message.content, str) else message.content
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": [_part(part) for part in parts]}


def _part(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image", "image": open_image(part.image_url.url)}


def open_image(url: str) -> Image.Image:
    """The PNG or JPEG in a ``data:`` URL of base64, of which only the header is read; raises ApiError.

    URLs are never fetched.
    """
    head, comma, data = url.partition(",")
    if not head.startswith("data:"):
        raise ApiError(400, "images must be data: URLs; this server fetches nothing", "invalid_image_url")
    if not comma or not head.endswith(";base64"):
        raise ApiError(400, "the image's data: URL is not base64", "invalid_image_url")
    with _image_errors():
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=["PNG", "JPEG"])
    if picture.width * picture.height > MAX_PIXELS:
        raise ApiError(413, f"an image of {picture.width}x{picture.height} pixels is too large", "image_too_large")
    return picture


@contextmanager
def _image_errors() -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ApiError(413, f"an image is too large: {error}", "image_too_large") from error
    except (binascii.Error, OSError, ValueError, SyntaxError) as error:
        raise ApiError(400, "the image is not a readable base64 PNG or JPEG", "invalid_image") from error


def chat_completion(model: str, completions: Sequence[Completion]) -> dict[str, Any]:
    """OpenAI's completion object; the prompt's tokens count once, however many answers there are."""
    prompt_tokens = completions[0].prompt_tokens
    completion_tokens = sum(completion.completion_tokens for completion in completions)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": completion.text, "refusal": None},
                "logprobs": None,
                "finish_reason": completion.finish_reason,
            }
            for index, completion in enumerate(completions)
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def model_list(model: str) -> dict[str, Any]:
    """OpenAI's list of models, with ``model`` alone."""
    return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "carl"}]}
