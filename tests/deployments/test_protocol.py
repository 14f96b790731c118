import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from carl.serving import protocol
from carl.serving.protocol import ApiError, RequestLimits, decoded, most_tokens, open_image, parse_request


def data_url(picture: Image.Image, form: str = "PNG") -> str:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


RED = data_url(Image.new("RGB", (4, 4), "red"))


def body(**changes: Any) -> bytes:
    content = [{"type": "image_url", "image_url": {"url": RED}}, {"type": "text", "text": "what is it?"}]
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **changes}).encode()


def test_a_request_becomes_one_prompt_per_answer() -> None:
    model, prompts = parse_request(body(n=3, temperature=0.2, top_p=0.9, max_tokens=5, seed=-1, stop="x"), 100)
    assert model == "m"
    assert len(prompts) == 3
    first = prompts[0].sampling
    assert (first.temperature, first.top_p, first.max_tokens, first.stop) == (0.2, 0.9, 5, ("x",))
    assert len({prompt.sampling.seed for prompt in prompts}) == 3
    picture, text = decoded(prompts)[2].messages[0]["content"]
    assert picture["image"].getpixel((0, 0)) == (255, 0, 0)
    assert text == {"type": "text", "text": "what is it?"}


def test_what_a_request_takes_at_most() -> None:
    large = [{"type": "image_url", "image_url": {"url": data_url(Image.new("RGB", (280, 56)))}}]
    text = [{"type": "text", "text": "x" * 40}]
    for content, prompt in ((large, 20), (text, 10), (large + text, 30)):
        messages = [{"role": "user", "content": content}]
        _, prompts = parse_request(body(messages=messages, n=3, max_tokens=7), 100)
        assert most_tokens(prompts) == prompt + 3 * 7


def test_defaults_and_nulls() -> None:
    _, [prompt] = parse_request(body(max_tokens=None, seed=None, stop=None, stream=False, user="me"), 100)
    assert prompt.sampling.max_tokens == 100
    assert prompt.sampling.seed is None
    assert parse_request(body(max_completion_tokens=7, max_tokens=5), 100)[1][0].sampling.max_tokens == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stream": True}, "'stream' is not supported"),
        ({"tools": [{}]}, "'tools' is not supported"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"n": 0}, "n:"),
        ({"n": 1000}, "n:"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["x"] * 5}, "stop"),
        ({"messages": [{"role": "user", "content": [{"type": "video", "video": "x"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "path": "/etc/passwd"}]}]}, "messages.0.content"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError, match=message) as raised:
        parse_request(body(**changes), 100)
    assert raised.value.status == 400
    assert raised.value.body()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'"x"', b"\xff\xfe"])
def test_a_body_that_is_no_object(junk: bytes) -> None:
    with pytest.raises(ApiError, match="JSON"):
        parse_request(junk, 100)


def test_what_would_change_the_answers_form_is_refused() -> None:
    for name, value in (
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}),
        ("response_format", "json"),
        ("modalities", ["text", "audio"]),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("logprobs", True),
        ("guided_json", {"type": "object"}),
    ):
        with pytest.raises(ApiError, match=f"'{name}' is not supported") as raised:
            parse_request(body(**{name: value}), 100)
        assert (raised.value.status, raised.value.code, raised.value.param) == (400, "unsupported_parameter", name)
    asks_for_text = {"response_format": {"type": "text"}, "modalities": ["text"], "tool_choice": "none", "tools": []}
    assert parse_request(body(**asks_for_text), 100)[0] == "m"


def pictures(count: int) -> list[dict[str, Any]]:
    """Messages of ``count`` pictures, two in each."""
    parts = [{"type": "image_url", "image_url": {"url": RED}}] * count
    return [{"role": "user", "content": parts[start : start + 2]} for start in range(0, count, 2)]


def test_limits_add_up_over_a_request() -> None:
    text = [{"role": "user", "content": "x" * 100}, {"role": "user", "content": [{"type": "text", "text": "x" * 60}]}]
    for messages, limits, (status, code) in (
        (pictures(5), RequestLimits(images=4), (413, "too_many_images")),
        (pictures(5), RequestLimits(pixels=79), (413, "image_too_large")),
        (text, RequestLimits(context=9), (400, "context_length_exceeded")),
    ):
        with pytest.raises(ApiError) as raised:
            parse_request(body(messages=messages), 100, limits)
        assert (raised.value.status, raised.value.code, raised.value.too_large) == (status, code, True)
    with pytest.raises(ApiError, match="characters"):
        parse_request(body(messages=text, stop="x"), 100, RequestLimits(context=10))
    assert parse_request(body(messages=pictures(5)), 100, RequestLimits(images=5, pixels=80))[0] == "m"
    assert parse_request(body(messages=text), 100, RequestLimits(context=10))[0] == "m"


def test_pixels_are_counted_before_any_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", read)
    _, prompts = parse_request(body(), 100)
    assert most_tokens(prompts) > 0
    with pytest.raises(ApiError, match="pixels"):
        parse_request(body(), 100, RequestLimits(pixels=15))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.com/a.png", "fetches nothing"),
        ("https://example.com/a.png", "fetches nothing"),
        ("file:///etc/passwd", "fetches nothing"),
        ("/etc/passwd", "fetches nothing"),
        ("data:image/png,abc", "not base64"),
        ("data:image/png;base64,@@@", "not a readable"),
        ("data:image/png;base64,aGVsbG8=", "not a readable"),
        (data_url(Image.new("RGB", (4, 4)), "BMP"), "not a readable"),
    ],
)
def test_images_that_are_none(url: str, message: str) -> None:
    with pytest.raises(ApiError, match=message) as raised:
        open_image(url)
    assert raised.value.status == 400


def mode(url: str) -> str:
    """How the only picture of a request reaches the model."""
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    _, prompts = parse_request(body(messages=messages), 100)
    found: str = decoded(prompts)[0].messages[0]["content"][0]["image"].mode
    return found


def test_a_jpeg_and_transparency_become_rgb() -> None:
    assert mode(data_url(Image.new("L", (4, 4), 9), "JPEG")) == "RGB"
    assert mode(data_url(Image.new("RGBA", (4, 4)))) == "RGB"


def test_an_image_that_breaks_off() -> None:
    with pytest.raises(ApiError, match="not a readable"):
        mode(RED[:-40])


def test_an_image_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_PIXELS", 15)
    with pytest.raises(ApiError, match="4x4") as raised:
        open_image(RED)
    assert raised.value.status == 413
