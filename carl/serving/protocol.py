"""OpenAI's chat completions: requests in, answers out, errors in its shape."""

import base64
import binascii
import io
import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carl.serving.prompt import Completion, Prompt, Sampling

MAX_PIXELS = 16 * 1024 * 1024
"""Largest image, in pixels, that is decoded."""

MAX_SAMPLES = 128
"""Most answers of one request, as in OpenAI's own API."""

PIXELS_PER_TOKEN, CHARACTERS_PER_TOKEN = 28 * 28, 4
"""Of Qwen2-VL; other models are of that order."""

UNSUPPORTED = ("stream", "tools", "functions", "logprobs", "top_logprobs", "logit_bias", "audio")
"""Parameters that would change the answer's form and that this server refuses rather than ignore."""

_ERROR_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
LONGEST_RETRY_S = 60
"""OpenAI's clients do not wait longer than this, but would ask again at once."""


class ApiError(Exception):
    """What the caller is told: an HTTP status, OpenAI's error object, and in how many seconds to ask again."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, retry_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_s = status, code, param, retry_s

    def body(self) -> dict[str, Any]:
        kind = _ERROR_TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        if self.retry_s is None:
            return {}
        return {"retry-after": str(self.retry_s), "x-should-retry": str(self.retry_s <= LONGEST_RETRY_S).lower()}


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class TextPart(_Lenient):
    type: Literal["text"]
    text: str


class ImageUrl(_Lenient):
    url: str


class ImagePart(_Lenient):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(_Lenient):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[Part, ...]


class ChatRequest(_Lenient):
    """The part of a chat completion request that this server understands."""

    model: str
    messages: tuple[Message, ...] = Field(min_length=1)
    n: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    temperature: float = Field(default=1.0, ge=0.0, le=2.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None
    stop: str | tuple[str, ...] | None = None


def parse_request(body: bytes, default_max_tokens: int) -> tuple[str, list[Prompt]]:
    """The model asked for, and one prompt per answer; raises ApiError."""
    request = _validated(body)
    messages = tuple(_message(message) for message in request.messages)
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
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


def most_tokens(prompts: Sequence[Prompt]) -> int:
    """What a request takes at most: its prompt, once and about, before a model has read it; and its longest answers."""
    parts = [part for message in prompts[0].messages for part in message["content"]]
    pixels: int = sum(part["image"].width * part["image"].height for part in parts if part["type"] == "image")
    characters = sum(len(part["text"]) for part in parts if part["type"] == "text")
    asked = pixels // PIXELS_PER_TOKEN + characters // CHARACTERS_PER_TOKEN
    return asked + sum(prompt.sampling.max_tokens for prompt in prompts)


def _validated(body: bytes) -> ChatRequest:
    from pydantic_core import from_json

    try:
        values = from_json(body)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ApiError(400, "the body is not a JSON object")
    for name in UNSUPPORTED:
        if values.get(name):
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
    return {"type": "image", "image": decode_image(part.image_url.url)}


def decode_image(url: str) -> Image.Image:
    """The picture in a ``data:`` URL of base64 PNG or JPEG, as RGB; raises ApiError. Nothing is ever fetched."""
    head, comma, data = url.partition(",")
    if not head.startswith("data:"):
        raise ApiError(400, "images must be data: URLs; this server fetches nothing", "invalid_image_url")
    if not comma or not head.endswith(";base64"):
        raise ApiError(400, "the image's data: URL is not base64", "invalid_image_url")
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=["PNG", "JPEG"])
        if picture.width * picture.height > MAX_PIXELS:
            raise ApiError(413, f"an image of {picture.width}x{picture.height} pixels is too large", "image_too_large")
        return picture.convert("RGB")
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ApiError(400, "the image is no readable base64 PNG or JPEG", "invalid_image") from error


def chat_completion(model: str, completions: Sequence[Completion]) -> dict[str, Any]:
    """The answer to a request; the prompt counts once however many answers were drawn from it."""
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
    return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "carl"}]}
