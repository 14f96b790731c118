"""The real thing: Ray Serve, HTTP and the openai client, with a tiny random Qwen2-VL behind them."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import psutil
import pytest
import ray
from PIL import Image

from carl.errors import ConfigError
from carl.serving.app import build
from carl.serving.local import serving
from tests.deployments.metrics import replica, reported
from tests.deployments.test_protocol import data_url

TOKEN = "a token of the test's own"
HEAD = "node:__internal_head__"  # a custom resource that any cluster has


@pytest.fixture(scope="module")
def served(models: dict[str, str], ray_cluster: None) -> Iterator[tuple[str, str]]:
    """(base URL, model) of a server that wants a token; checks that nothing is left of it afterwards."""
    free = ray.available_resources()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_VLM_TOKEN", TOKEN)
        model = models["qwen2_vl"]
        with serving(
            model, token_env="TEST_VLM_TOKEN", threads=1, max_batch_size=8, batch_wait_s=0.2, resources={HEAD: 0.25}
        ) as base_url:
            assert ray.available_resources()["CPU"] == free["CPU"] - 1
            assert ray.available_resources()[HEAD] == pytest.approx(
                free[HEAD] - 0.25, abs=0.01
            )  # Serve takes crumbs of it
            yield base_url, model
    assert ray.available_resources()["CPU"] == free["CPU"]
    assert not [actor for actor in ray.util.list_named_actors(all_namespaces=True) if actor["namespace"] == "serve"]
    names = [process.name() for process in psutil.Process().children(recursive=True)]
    assert not [name for name in names if name.startswith(("ray::Serve", "ray::Proxy"))]
    host, port = base_url.split("/")[2].split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=1)


@pytest.fixture
def client(served: tuple[str, str]) -> openai.OpenAI:
    return openai.OpenAI(base_url=served[0], api_key=TOKEN, max_retries=0)


def messages(colour: str = "red", text: str = "what is it?") -> list[Any]:
    url = data_url(Image.new("RGB", (32, 32), colour))
    return [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text},
        ]},
    ]  # fmt: skip


def health(base_url: str) -> Any:
    with urllib.request.urlopen(base_url.removesuffix("v1") + "health") as answer:
        return json.load(answer)


def test_concurrent_requests_share_a_batch(client: openai.OpenAI, served: tuple[str, str]) -> None:
    def ask(n: int) -> str | None:
        answer = client.chat.completions.create(
            model=served[1], messages=messages(), n=2, max_tokens=4, temperature=0 if n % 2 else 1.0
        )
        return answer.choices[0].message.content

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    found = reported("ray_carl_vlm_batch_size_sum", 12, replica=replica("VlmModel"))
    assert found["ray_carl_vlm_batch_size_sum"] == 12
    assert found["ray_carl_vlm_batch_size_count"] <= 5
    assert found["ray_carl_vlm_generation_seconds_total"] > 0
    assert answers[1] == answers[3] == answers[5]


def test_several_answers_and_their_usage(client: openai.OpenAI, served: tuple[str, str]) -> None:
    ask = {"model": served[1], "messages": messages(), "n": 3, "max_tokens": 5, "seed": 4}
    answer = client.chat.completions.create(**ask)  # type: ignore[call-overload]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.finish_reason for choice in answer.choices} <= {"length", "stop"}
    assert answer.usage.completion_tokens <= 15
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == served[1]
    again = client.chat.completions.create(**ask)  # type: ignore[call-overload]
    assert [choice.message.content for choice in again.choices] == [choice.message.content for choice in answer.choices]


def test_a_bad_neighbour_fails_alone(client: openai.OpenAI, served: tuple[str, str]) -> None:
    def ask(text: str) -> int:
        try:
            client.chat.completions.create(model=served[1], messages=messages(text=text), max_tokens=2)
        except openai.BadRequestError as error:
            return error.status_code
        return 200

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, ["fine", "x" * 5000, "fine too"])) == [200, 400, 200]


def test_models(client: openai.OpenAI, served: tuple[str, str]) -> None:
    assert [model.id for model in client.models.list()] == [served[1]]


def test_nothing_but_health_without_the_token(served: tuple[str, str]) -> None:
    for key in ("wrong", TOKEN[:-1], TOKEN + "x", "ü"):
        with pytest.raises((openai.AuthenticationError, UnicodeEncodeError)):
            openai.OpenAI(base_url=served[0], api_key=key, max_retries=0).models.list()
    root = served[0].removesuffix("v1")
    for path in ("v1/models", "v1/chat/completions", "docs", "openapi.json", "nothing", "health/more", "v1//health"):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(root + path)
        assert raised.value.code == 401
    assert health(served[0])["status"] == "ok"


def test_errors_are_openais(client: openai.OpenAI, served: tuple[str, str]) -> None:
    model = served[1]
    with pytest.raises(openai.NotFoundError, match="no model 'other' here"):
        client.chat.completions.create(model="other", messages=messages())
    with pytest.raises(openai.NotFoundError):
        client.get("/nothing", cast_to=object)
    with pytest.raises(openai.BadRequestError, match="'stream' is not supported"):
        client.chat.completions.create(model=model, messages=messages(), stream=True)
    bad: Any = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}
    ]
    with pytest.raises(openai.BadRequestError, match="not a readable") as raised:
        client.chat.completions.create(model=model, messages=bad)
    assert raised.value.code == "invalid_image"
    bad[0]["content"][0]["image_url"]["url"] = "http://127.0.0.1:1/a.png"
    with pytest.raises(openai.BadRequestError, match="fetches nothing"):
        client.chat.completions.create(model=model, messages=bad)
    with pytest.raises(openai.APIStatusError, match="larger than 32 MiB") as too_large:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x" * (33 * 2**20)}])
    assert too_large.value.status_code == 413


def test_it_listens_on_this_machine_alone(served: tuple[str, str]) -> None:
    port = int(served[0].split(":")[2].split("/")[0])
    listening = [each.laddr.ip for each in psutil.net_connections("tcp") if each.laddr and each.laddr.port == port]
    assert set(listening) == {"127.0.0.1"}


def test_serve_is_not_taken_from_somebody_else(served: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="already runs"), serving(served[1]):
        pass


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        build({"batch_size": 3})
    with pytest.raises(ConfigError, match="NO_SUCH_TOKEN"):
        build({"token_env": "NO_SUCH_TOKEN"})
