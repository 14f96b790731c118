import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from carl.serving import protocol
from carl.serving.protocol import ApiError, decode_image, most_tokens, parse_request


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
    picture, text = prompts[0].messages[0]["content"]
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


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.com/a.png", "fetches nothing"),
        ("https://example.com/a.png", "fetches nothing"),
        ("file:///etc/passwd", "fetches nothing"),
        ("/etc/passwd", "fetches nothing"),
        ("data:image/png,abc", "not base64"),
        ("data:image/png;base64,@@@", "no readable"),
        ("data:image/png;base64,aGVsbG8=", "no readable"),
        (RED[:-40], "no readable"),
        (data_url(Image.new("RGB", (4, 4)), "BMP"), "no readable"),
    ],
)
def test_images_that_are_none(url: str, message: str) -> None:
    with pytest.raises(ApiError, match=message) as raised:
        decode_image(url)
    assert raised.value.status == 400


def test_a_jpeg_and_transparency_become_rgb() -> None:
    assert decode_image(data_url(Image.new("L", (4, 4), 9), "JPEG")).mode == "RGB"
    assert decode_image(data_url(Image.new("RGBA", (4, 4)))).mode == "RGB"


def test_an_image_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_PIXELS", 15)
    with pytest.raises(ApiError, match="4x4") as raised:
        decode_image(RED)
    assert raised.value.status == 413
