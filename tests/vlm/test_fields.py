"""What servers say of a field that they do not take, in their own words."""

from typing import Any

import pytest

from carl.vlm.fields import RENAMED, fitted, refused


def said(message: Any, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


def located(*loc: Any, msg: str = "Extra inputs are not permitted") -> dict[str, Any]:
    body = {"model": "m", "n": 8, "seed": 1, "temperature": 0.7, "max_tokens": 9, "messages": [{"role": "system"}]}
    return {"detail": [{"type": "extra_forbidden", "loc": ["body", *loc], "msg": msg, "input": body}]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (said("only one choice can be asked for; n must be 1"), "n"),
        (said("Multiple candidates is not enabled for this model"), "n"),
        (said("Only one completion may be requested"), "n"),
        (said("too large", param="n"), "n"),
        (located("n", msg="Input should be less than or equal to 1"), "n"),
        (located("seed"), "seed"),
        (said({"detail": [{"loc": ["body", "seed"], "msg": "no such input"}]}, param=None), "seed"),
        ([{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.'}}], "seed"),
        (said("Unsupported parameter: 'seed'. Supported are: n, temperature, max_tokens"), "seed"),
        ("this model cannot be deterministic", "seed"),
        (said("'temperature' does not support 0.7 with this model"), "temperature"),
        ({"error": "sampling parameters are fixed"}, "temperature"),
        ({"message": "do_sample is off"}, "temperature"),
        (said("La température demandée n'est pas prise en charge"), "temperature"),
        (said("Les messages système ne sont pas acceptés avec des images"), "system"),
        (said("系统消息不能与图片一起使用"), "system"),
        (said("use 'max_completion_tokens' instead", param="max_tokens"), RENAMED),
        (said("maxOutputTokens must be at most 512"), RENAMED),
        (located("max_tokens", msg="Input should be less than 512"), RENAMED),
        (said("pictures and a system message do not go together"), "system"),
        (said("Developer instruction is not enabled for this model"), "system"),
        (said("Conversation roles must alternate user/assistant/user"), "system"),
        (located("messages", 0, "role", msg="Input should be 'user' or 'assistant'"), "system"),
        (said("the picture is too large"), None),
        (said("maximum context length is 4096 tokens, and the messages have 5000"), None),
        (said("don't know /v1/chat/completions"), None),
        (located("messages", 0, "content", msg="Field required"), None),
        ("", None),
        (None, None),
    ],
)
def test_the_field_that_an_error_is_about(body: Any, field: str | None) -> None:
    assert refused(body, frozenset()) == field


def test_a_field_is_left_out_once_and_max_tokens_is_renamed_first() -> None:
    body = said("neither max_tokens nor seed")
    assert refused(body, frozenset()) == RENAMED
    assert refused(body, frozenset({RENAMED})) == "max_tokens"
    assert refused(body, frozenset({RENAMED, "max_tokens"})) == "seed"
    assert refused(body, frozenset({RENAMED, "max_tokens", "seed"})) is None


def test_what_is_sent_then() -> None:
    picture = {"type": "image_url", "image_url": {"url": "x"}}
    user = {"role": "user", "content": [picture, {"type": "text", "text": "look"}]}
    body = {"messages": [{"role": "system", "content": "be brief"}, user], "n": 8, "seed": 1, "max_tokens": 9}
    assert fitted(body, frozenset()) == body
    assert fitted(body, frozenset({RENAMED, "n"})) == {
        "messages": body["messages"], "seed": 1, "max_completion_tokens": 9,
    }  # fmt: skip
    assert fitted(body, frozenset({RENAMED, "max_tokens", "system"})) == {
        "messages": [{"role": "user", "content": [picture, {"type": "text", "text": "be brief\n\nlook"}]}],
        "n": 8,
        "seed": 1,
    }
