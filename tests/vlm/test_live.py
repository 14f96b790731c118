"""Servers as they are: what they refuse, how they fail, what they call an answer, and how long they take."""

import json
import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from carl.config import VlmConfig
from carl.errors import VlmError
from carl.vlm import live
from carl.vlm.client import VlmClient, connect
from carl.vlm.exchange import Question, Recording
from tests.fakes.scripted_vlm import Asked, Script, ScriptedVlm, Status, completion, scripted

FRAMES = (np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3),)
QUESTION = Question("decompose/1", "be brief", "look", FRAMES)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between requests, which take no time."""
    taken: list[float] = []
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=time.monotonic, sleep=taken.append))
    return taken


def ask(script: Script, folder: Path, n: int = 2, **changes: Any) -> tuple[tuple[str, ...], ScriptedVlm, VlmClient]:
    with scripted(script) as server:
        settings: dict[str, Any] = {"model": "m", "base_url": server.base_url, "timeout_s": 5, "max_retries": 0}
        with connect(VlmConfig(**settings | {"patience_s": 0} | changes), folder) as client:
            return client.ask(QUESTION, n, 7), server, client


def one(text: str | None = "fine", finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A completion with one choice, whatever was asked for."""
    made = completion([""])
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    made["choices"] = [{"index": 0, "finish_reason": finish, "message": message, **more}]
    return made


def test_what_a_server_does_not_take_is_left_out_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def picky(asked: Asked) -> list[str] | Status:
        for name in ("n", "seed", "temperature"):
            if name in asked.body:
                return Status(422, {"detail": [{"loc": ["body", name], "msg": "no such input"}]})
        if asked.body["messages"][0]["role"] == "system":
            return Status(400, "<p>pictures and a system message do not go together</p>")
        return ["fine"]

    with caplog.at_level(logging.WARNING), scripted(picky) as server:
        settings = VlmConfig(model="m", base_url=server.base_url, max_retries=0, patience_s=0)
        with connect(settings, tmp_path) as client:
            assert client.ask(QUESTION, 3, 7) == ("fine",) * 3
            assert len(server.asked) == 4 + 3
            assert client.ask(QUESTION, 3, 8) == ("fine",) * 3
            assert len(server.asked) == 7 + 3
    assert server.asked[-1].text == "be brief\n\nlook"
    assert len(server.asked[-1].images) == 1
    assert len(caplog.messages) == 4
    assert client.usage.samples == client.wanted == 6


def test_what_is_left_out_in_vain_is_sent_again(tmp_path: Path) -> None:
    error = {"error": {"message": "the system cannot read the picture"}}
    with scripted(lambda _: Status(400, error)) as server:
        settings = VlmConfig(model="m", base_url=server.base_url, max_retries=0, patience_s=0)
        with connect(settings, tmp_path) as client:
            for seed in (1, 2):
                with pytest.raises(VlmError, match="refuses the request: 400: the system cannot read the picture"):
                    client.ask(QUESTION, 1, seed)
    assert [asked.body["messages"][0]["role"] for asked in server.asked] == ["system", "user"] * 2


@pytest.mark.parametrize("most", [1, 3])
def test_a_server_that_gives_fewer_answers_is_asked_for_the_rest(tmp_path: Path, most: int) -> None:
    def few(asked: Asked) -> Status:
        return Status(200, completion([f"{asked.body['seed']} {index}" for index in range(min(asked.n, most))]))

    answers, server, client = ask(few, tmp_path, n=8)
    assert len(set(answers)) == 8, "each request has a seed of its own"
    assert [asked.n for asked in server.asked] == list(range(8, 0, -most))
    assert (client.usage.samples, client.usage.calls) == (8, len(server.asked))


def test_where_a_server_fails_after_some_answers_these_are_kept_and_counted(tmp_path: Path) -> None:
    def failing(asked: Asked) -> Status:
        return Status(200, one()) if asked.n > 2 else Status(500)

    answers, _, client = ask(failing, tmp_path, n=4)
    assert answers == ("fine", "fine")
    assert (client.usage.samples, client.wanted) == (2, 4)


PASSING = {
    "an error of 429": {"error": {"message": "the provider is busy", "code": 429}},
    "an error of 502": {"error": {"message": "the provider is busy", "code": "502"}},
    "an error without code": {"error": "the provider is busy"},
    "an object that is an error": {"object": "error", "message": "the provider is busy", "code": 50001},
    "nothing at all": "",
    "no choice": {"choices": []},
    "an empty choice": one(""),
    "a choice of nothing": one(None),
    "a choice that failed": one("", "error", error={"message": "the provider is busy", "code": 503}),
    "half a character": one("take the \ud83d key"),
    "half a JSON": json.dumps(one())[:-20],
}


@pytest.mark.parametrize("reply", PASSING)
def test_what_is_no_answer_is_asked_again(tmp_path: Path, reply: str, pauses: list[float]) -> None:
    def recovering(asked: Asked) -> list[str] | Status:
        return Status(200, PASSING[reply]) if len(server.asked) == 1 else ["fine"]

    with scripted(recovering) as server:
        settings = VlmConfig(model="m", base_url=server.base_url, max_retries=1, patience_s=9)
        with connect(settings, tmp_path) as client:
            assert client.ask(QUESTION, 2, 7) == ("fine", "fine")
    assert len(server.asked) == 2
    assert pauses == [1]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"error": {"message": "no credits left", "code": 402}}, "wants to be paid: 402: no credits left"),
        ({"error": {"message": "who are you?", "code": 401}}, "refuses the token.*who are you"),
        ({"error": {"message": "bad picture", "code": 400}}, "refuses the request: 400: bad picture"),
        (one("", "error", error={"code": 403, "message": "not in your country"}), "not in your country"),
        ({"detail": [{"loc": ["body", "model"], "msg": "no such model"}]}, "body model: no such model"),
        ("<html><style>p {}</style><p>please <b>sign</b> in</p></html>", r"no chat completion \(please sign in\)"),
        ({"object": "list", "data": []}, "no chat completion"),
        ({"object": "error", "message": "no such field", "code": 400}, "refuses the request: 400: no such field"),
        (one(None, "tool_calls", message={"tool_calls": [{}]}), "empty.*tool_calls"),
        (one(7), "no chat completion"),  # type: ignore[arg-type]
    ],
)
def test_an_error_under_status_200_is_one_in_the_provider_s_own_words(tmp_path: Path, reply: Any, message: str) -> None:
    with pytest.raises(VlmError, match=message):
        ask(lambda _: Status(200, reply), tmp_path)


@pytest.mark.parametrize(
    "reply",
    ["\ufeff" + json.dumps(one()), one([{"type": "output_text", "text": "fine"}])],  # type: ignore[arg-type]
)
def test_an_answer_is_found_in_its_dress(tmp_path: Path, reply: Any) -> None:
    answers, _, _ = ask(lambda _: Status(200, reply), tmp_path, n=1)
    assert answers == ("fine",)


def test_one_choice_that_cannot_be_used_is_asked_for_again(tmp_path: Path) -> None:
    def mixed(asked: Asked) -> Status:
        made = completion(["fine"] * asked.n)
        if asked.n > 1:
            made["choices"][0]["message"]["content"] = "half a \udc00"
        return Status(200, made)

    answers, server, _ = ask(mixed, tmp_path, n=3)
    assert answers == ("fine",) * 3
    assert [asked.n for asked in server.asked] == [3, 1]


def test_words_of_a_server_do_not_steer_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(VlmError, match=r"refuses the request: 400: red alert$"):
        ask(lambda _: Status(400, {"error": "\x1b[31mred\x1b[0m\nalert\u202e"}), tmp_path)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (one(None, "length", message={"reasoning_content": "hm"}), "cut off before .* raise vlm.max_tokens"),
        (one("", "content_filter"), "content filter"),
        (one("", "SAFETY"), "content filter"),
    ],
)
def test_answers_without_a_word_say_why(tmp_path: Path, reply: Any, message: str) -> None:
    with scripted(lambda _: Status(200, reply)) as server:
        settings = VlmConfig(model="m", base_url=server.base_url, max_retries=2, patience_s=9)
        with connect(settings, tmp_path) as client, pytest.raises(VlmError, match=message):
            client.ask(QUESTION, 2, 7)
    assert len(server.asked) == 1, "another try would end alike"


def test_how_answers_ended_is_recorded(tmp_path: Path) -> None:
    made = completion(["fine", "cut", "", ""])
    made["choices"][1]["finish_reason"] = "length"
    made["choices"][2]["message"] = {"content": None, "refusal": "I would rather not"}
    made["choices"][3]["message"] = {"content": "", "reasoning": "1. go"}
    ask(lambda _: Status(200, made), tmp_path, n=4)
    [line] = (tmp_path / "exchanges.jsonl").read_text().splitlines()
    assert json.loads(line)["answers"] == ["fine", "cut", "I would rather not", "<think>\n1. go"]
    assert json.loads(line)["ends"] == ["stop", "length", "refusal", "stop"]


def test_a_recording_of_before_is_answered_from(tmp_path: Path) -> None:
    """Requests are found by this digest, in recordings that say nothing of how answers ended."""
    name = "2de6fc8b7fde1b6e3da033dcab44f94b2bc5d21cd574b822561788d804384801"
    draw = {"n": 2, "temperature": 0.7, "max_tokens": 1024, "seed": 7}
    old = {"digest": name, "model": "m", "prompt": "decompose/1", "messages": [], "draw": draw, "answers": ["a", "b"]}
    (tmp_path / "exchanges.jsonl").write_text(json.dumps(old) + "\n")
    client = VlmClient(VlmConfig(model="m", max_tokens=1024), Recording(tmp_path / "exchanges.jsonl"))
    assert client.ask(QUESTION, 2, 7) == ("a", "b")


def test_an_answer_that_drips_is_late(tmp_path: Path) -> None:
    """No pause between its bytes is as long as the timeout, and all of them take longer."""
    reply = Status(200, one(), pause_s=0.01)
    with pytest.raises(VlmError, match=r"within 0\.3 s"):
        ask(lambda _: reply, tmp_path, timeout_s=0.3)


def test_no_pause_is_longer_than_patience(tmp_path: Path, pauses: list[float]) -> None:
    reply = Status(429, headers={"Retry-After": "100"})
    with pytest.raises(VlmError, match=r"asks to wait 100 s, longer than vlm\.patience_s=60"):
        ask(lambda _: reply, tmp_path, max_retries=2, patience_s=60)
    assert pauses == []
    ask(lambda asked: Status(500) if not pauses else ["fine"], tmp_path, max_retries=2, patience_s=0.5)
    assert 0 < pauses[0] <= 0.5


def test_a_date_to_come_back_at_is_waited_for(tmp_path: Path, pauses: list[float]) -> None:
    from email.utils import formatdate

    at = formatdate(time.time() + 30, usegmt=True)
    ask(lambda asked: Status(503, headers={"Retry-After": at}) if not pauses else ["fine"], tmp_path, patience_s=60)
    assert 20 < pauses[0] <= 30


def test_a_server_on_this_machine_is_asked_without_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert ask(lambda _: ["fine"], tmp_path)[0] == ("fine", "fine")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "At most 1 image(s) may be provided in one prompt."),
        (413, "70 images in a request; at most 64 pass (too_many_images)"),
        (400, "Too many images in request. Max is 8."),
    ],
)
def test_a_server_that_takes_fewer_pictures_names_the_setting(tmp_path: Path, status: int, words: str) -> None:
    with pytest.raises(VlmError, match=r"takes fewer pictures; lower synthesis\.pictures"):
        ask(lambda _: Status(status, {"error": {"message": words}}), tmp_path)


def test_captions_come_before_their_pictures(tmp_path: Path) -> None:
    question = Question("decompose/2", "be brief", "look", FRAMES * 2, ("first", "second"))
    with scripted(lambda _: ["fine"]) as server:
        settings = VlmConfig(model="m", base_url=server.base_url, max_retries=0, patience_s=0)
        with connect(settings, tmp_path) as client:
            client.ask(question, 1, 7)
    content = server.asked[0].body["messages"][1]["content"]
    assert [part.get("text") for part in content] == ["Picture 1: first", None, "Picture 2: second", None, "look"]
