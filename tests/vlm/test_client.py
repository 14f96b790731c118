import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from carl.config import VlmConfig
from carl.errors import StoreError, VlmError
from carl.vlm import live
from carl.vlm.client import connect
from carl.vlm.exchange import Draw, Question, Recording, digest, sha256
from tests.fakes.scripted_vlm import Asked, Status, scripted

FRAMES = tuple(np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8) for seed in range(2))
QUESTION = Question("decompose/1", "be brief", "look\nTask: name the sub-tasks.", FRAMES)


def config(base_url: str | None, **changes: object) -> VlmConfig:
    return VlmConfig(
        **{"model": "m", "base_url": base_url, "timeout_s": 5, "max_retries": 0, "patience_s": 0, **changes}
    )  # type: ignore[arg-type]


def answers(asked: Asked) -> list[str]:
    return [f"answer {index}" for index in range(asked.n)]


def ask(config: VlmConfig, folder: Path, seed: int = 0) -> tuple[str, ...]:
    with connect(config, folder) as client:
        return client.ask(QUESTION, 3, seed)


def test_what_goes_over_the_wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    with scripted(answers) as server:
        settings = config(server.base_url, api_key_env="MY_KEY", temperature=0.3, min_frame_px=30)
        assert ask(settings, tmp_path, seed=9) == ("answer 0", "answer 1", "answer 2")
    [asked] = server.asked
    assert asked.headers["authorization"] == "Bearer s3cret"
    assert {key: asked.body[key] for key in ("model", "n", "temperature", "max_tokens", "seed")} == {
        "model": "m", "n": 3, "temperature": 0.3, "max_tokens": 4096, "seed": 9,
    }  # fmt: skip
    assert asked.body["messages"][0] == {"role": "system", "content": "be brief"}
    assert asked.text == QUESTION.user
    pictures = [decoded(url) for url in asked.images]
    assert [picture.shape for picture in pictures] == [(32, 48, 3)] * 2
    np.testing.assert_array_equal(pictures[0][::4, ::4], FRAMES[0])
    np.testing.assert_array_equal(pictures[0][3::4, 3::4], FRAMES[0])


def decoded(url: str) -> np.ndarray:
    import base64

    data = np.frombuffer(base64.b64decode(url.removeprefix("data:image/png;base64,")), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_an_exchange_is_recorded_and_stands_in_for_the_model(tmp_path: Path) -> None:
    with scripted(answers) as server:
        settings = config(server.base_url)
        first = ask(settings, tmp_path)
        assert ask(settings, tmp_path) == first
        assert len(server.asked) == 1
        ask(settings, tmp_path, seed=1)
        assert len(server.asked) == 2
    [line, _] = (tmp_path / "exchanges.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["answers"] == list(first)
    assert record["prompt"] == "decompose/1"
    assert record["messages"][1]["content"][0] == {"type": "image", "sha256": sha256(FRAMES[0])}
    assert record["usage"].pop("seconds") > 0
    assert record["usage"] == {"calls": 1, "samples": 3, "prompt_tokens": 100, "completion_tokens": 30}
    picture = cv2.imread(str(tmp_path / "images" / f"{sha256(FRAMES[1])}.png"))
    np.testing.assert_array_equal(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), FRAMES[1])

    elsewhere = tmp_path / "elsewhere"
    replay = config(None, recording=tmp_path / "exchanges.jsonl")
    with connect(replay, elsewhere) as client:
        assert client.ask(QUESTION, 3, 0) == first
        assert client.usage.completion_tokens == 30
        with pytest.raises(VlmError, match="not in the recording"):
            client.ask(QUESTION, 3, 2)
    assert ask(config("http://127.0.0.1:1/v1"), elsewhere) == first


def test_the_digest_tells_what_differs() -> None:
    draw = Draw(n=1, temperature=0, max_tokens=1, seed=0)
    other = Question(QUESTION.prompt, QUESTION.system, QUESTION.user, FRAMES[::-1])
    names = {digest("m", QUESTION, draw), digest("m2", QUESTION, draw), digest("m", other, draw)}
    names.add(digest("m", QUESTION, draw.model_copy(update={"seed": 1})))
    assert len(names) == 4


def test_a_torn_last_line_is_forgotten_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "exchanges.jsonl"
    with scripted(answers) as server:
        ask(config(server.base_url), tmp_path)
        ask(config(server.base_url), tmp_path, seed=1)
        path.write_bytes(path.read_bytes()[:-100])
        ask(config(server.base_url), tmp_path)
        assert len(server.asked) == 2
        ask(config(server.base_url), tmp_path, seed=1)
        assert len(server.asked) == 3
    assert len(path.read_text().splitlines()) == 2
    path.write_text(path.read_text().replace('"digest"', '"digset"', 1))
    with pytest.raises(StoreError, match=re.escape(f"{path}, line 1")):
        Recording(path)
    with pytest.raises(StoreError, match="no recording at"):
        ask(config(None, recording=tmp_path / "none.jsonl"), tmp_path / "new")


def test_a_server_that_is_down(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(VlmError, match="cannot be reached"):
        ask(config(f"http://127.0.0.1:{port}/v1"), tmp_path)
    [line] = (tmp_path / "exchanges.jsonl").read_text().splitlines()
    assert "cannot be reached" in json.loads(line)["error"]
    with scripted(answers) as server:
        assert len(ask(config(server.base_url), tmp_path)) == 3


def test_a_server_that_is_slow(tmp_path: Path) -> None:
    def slow(asked: Asked) -> list[str]:
        time.sleep(0.6)
        return answers(asked)

    with scripted(slow) as server, pytest.raises(VlmError, match=r"within 0\.2 s"):
        ask(config(server.base_url, timeout_s=0.2, max_retries=1), tmp_path)
    assert len(server.asked) == 2


def test_a_server_that_recovers(tmp_path: Path) -> None:
    def recovering(asked: Asked) -> list[str] | Status:
        return [Status(503), Status(429), answers(asked)][len(server.asked) - 1]  # type: ignore[return-value]

    with scripted(recovering) as server:
        assert len(ask(config(server.base_url, max_retries=2), tmp_path)) == 3
    assert len(server.asked) == 3


def test_a_server_that_is_full_or_loading_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append))

    def loading(asked: Asked) -> list[str] | Status:
        replies = [Status(503), Status(429), Status(503, headers={"Retry-After": "7"}), answers(asked)]
        return replies[len(server.asked) - 1]  # type: ignore[return-value]

    with scripted(loading) as server:
        assert len(ask(config(server.base_url, patience_s=60), tmp_path)) == 3
    assert pauses == [1, 2, 7]


def test_a_budget_that_is_used_up_is_not_asked_again(tmp_path: Path) -> None:
    error = {"message": "2 of 2 requests today", "type": "t", "param": None, "code": "insufficient_quota"}
    reply = Status(429, {"error": error}, {"x-should-retry": "false"})
    with scripted(lambda _: reply) as server, pytest.raises(VlmError, match=r"no more today: .*2 of 2 requests"):
        ask(config(server.base_url, max_retries=2, patience_s=60), tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Status(500), "failed"),
        (Status(429), "turns requests away"),
        (Status(401), "refuses the token.*CARL_VLM_API_KEY"),
        (Status(403), "refuses the token"),
        (Status(404), "has no model 'm'"),
        (Status(400), "refuses the request"),
        (Status(200, {"choices": []}), "no chat completion"),
        (Status(200, {"hello": "world"}), "no chat completion"),
        (Status(200, {"choices": "abc"}), "no chat completion"),
        (Status(200, {"choices": [{"text": "x"}]}), "no chat completion"),
        (Status(200, {"choices": [{"message": None}]}), "no chat completion"),
        (Status(200, {"choices": [{"message": {"role": "assistant", "content": 7}}]}), "no chat completion"),
        (Status(200, "<html>welcome</html>"), "no chat completion"),
    ],
)
def test_a_server_that_refuses(tmp_path: Path, reply: Status, message: str) -> None:
    with scripted(lambda _: reply) as server, pytest.raises(VlmError, match=message):
        ask(config(server.base_url), tmp_path)


def test_an_answer_in_parts_is_put_together_and_recorded(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "1. open "}, {"type": "text", "text": "the door"}]
    reply = Status(200, {"choices": [{"message": {"role": "assistant", "content": parts}}]})
    with scripted(lambda _: reply) as server:
        first = ask(config(server.base_url), tmp_path)
        assert first == ask(config(server.base_url), tmp_path) == ("1. open the door",) * 3
    assert len(server.asked) == 3


def test_parameters_that_a_server_names_as_unknown_are_left_out(tmp_path: Path) -> None:
    def picky(asked: Asked) -> list[str] | Status:
        for name in ("max_tokens", "temperature", "seed"):
            if name in asked.body:
                return Status(400, {"error": {"message": f"no {name}", "code": "unsupported_value", "param": name}})
        return answers(asked)

    with scripted(picky) as server, connect(config(server.base_url), tmp_path) as client:
        client.ask(QUESTION, 3, 0)
        client.ask(QUESTION, 3, 1)
    assert len(server.asked) == 5
    assert server.asked[-1].body["max_completion_tokens"] == 4096


def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    message = {"role": "assistant", "content": None, "refusal": "I would rather not"}
    reply = Status(200, {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})
    with scripted(lambda _: reply) as server:
        assert ask(config(server.base_url), tmp_path) == ("I would rather not",) * 3


def test_a_model_served_here_holds_nothing_afterwards(tmp_path: Path, ray_cluster: None) -> None:
    import ray

    from tests.fakes.tiny_vlms import llava

    free = ray.available_resources()["CPU"]
    settings = config(None, model=str(llava(tmp_path / "model")), max_tokens=4, timeout_s=60)
    with connect(settings, tmp_path) as client:
        assert ray.available_resources()["CPU"] == free
        first = client.ask(QUESTION, 3, 0)
        assert len(first) == 3
        assert client.usage.prompt_tokens > 0
    assert not [actor for actor in ray.util.list_named_actors(all_namespaces=True) if actor["namespace"] == "serve"]
    assert ask(settings.model_copy(update={"base_url": "http://127.0.0.1:1/v1"}), tmp_path) == first


def test_a_model_served_here_is_gone_after_a_release_and_back_for_a_new_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up: list[bool] = []

    @contextmanager
    def serving(model: str, **_: object) -> Iterator[str]:
        with scripted(lambda asked: ["1. a"] * asked.n) as server:
            up.append(True)
            yield server.base_url
            up[-1] = False

    monkeypatch.setattr("carl.serving.local.serving", serving)
    with connect(VlmConfig(model="scripted", timeout_s=5, max_retries=0), tmp_path) as client:
        assert up == [True], "it is loaded at once"
        assert client.ask(QUESTION, 1, 0) == ("1. a",)
        client.release()
        assert up == [False]
        assert client.ask(QUESTION, 1, 0) == ("1. a",)
        assert up == [False], "what is recorded needs no model"
        assert client.ask(QUESTION, 1, 1) == ("1. a",)
        assert up == [False, True]
    assert up == [False, False]
