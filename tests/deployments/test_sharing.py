"""Two drivers, one server that scales to zero: cold starts, a full queue, budgets, metrics."""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import openai
import pytest
import ray
from PIL import Image

from carl.config import VlmConfig
from carl.errors import VlmError
from carl.serving.local import serving
from carl.vlm.client import connect
from carl.vlm.exchange import Question
from tests.deployments.metrics import replica, reported
from tests.deployments.test_protocol import data_url

CLIENTS = {
    "alice": {"token": "a", "requests_per_day": 4},
    "bob": {"token": "b", "tokens_per_day": 100_000},
    "carol": {"token": "c", "tokens_per_day": 6_402},
    "dave": {"token": "d", "requests_per_day": 1},
    "erin": {"token": "e"},
}
REQUESTS = "ray_carl_vlm_requests_total"
QUESTION = Question("decompose/1", "be brief", "what is it?", (np.zeros((32, 32, 3), np.uint8),))


@pytest.fixture(scope="module")
def served(models: dict[str, str], ray_cluster: None) -> Iterator[tuple[str, str]]:
    """(base URL, model)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_VLM_CLIENTS", json.dumps(CLIENTS))
        patch.setenv("ALICE", "a")
        patch.setenv("BOB", "b")
        scaling = {"downscale_to_zero_delay_s": 0}
        args = {"clients_env": "TEST_VLM_CLIENTS", "max_batch_size": 1, "max_queued_requests": 2, "threads": 1}
        args |= {"max_requests_per_client": 6, "max_images": 2}
        with serving(models["qwen2_vl"], autoscaling=scaling, default_max_tokens=4, **args) as base_url:
            yield base_url, models["qwen2_vl"]


def wait_for_free_cpus(cpus: float, timeout_s: float = 60) -> bool:
    deadline = time.monotonic() + timeout_s
    while free_cpus() != cpus and time.monotonic() < deadline:
        time.sleep(0.2)
    return free_cpus() == cpus


def free_cpus() -> float:
    return float(ray.available_resources().get("CPU", 0.0))


def test_nobody_asks_then_many_at_once(served: tuple[str, str]) -> None:
    base_url, model = served
    assert wait_for_free_cpus(2)

    def ask(key: str) -> tuple[object, ...]:
        client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0)
        try:
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}])
        except openai.APIStatusError as error:
            return error.status_code, error.code, error.type, error.response.headers.get("retry-after")
        return (200,)

    assert ask("nobody")[0] == 401
    assert free_cpus() == 2
    with ThreadPoolExecutor(6) as pool:
        answers = Counter(pool.map(ask, "bbbbbb"))
    assert answers == {(200,): 2, (429, "queue_full", "rate_limit_error", "5"): 4}
    assert free_cpus() == 1


def refusal(base_url: str, key: str, path: str = "chat/completions", content: bytes = b"{}") -> tuple[int, object]:
    """Status and error code of a request that is refused, (200, None) of one that is not."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        with urlopen(Request(f"{base_url}/{path}", content, headers)) as answer:
            return answer.status, None
    except HTTPError as error:
        return error.code, json.load(error)["error"]["code"]


@contextmanager
def arriving(base_url: str, key: str, count: int) -> Iterator[None]:
    """``count`` requests whose bodies stop in the middle: more than there are places for, which are turned away."""
    host, port = base_url.split("/")[2].split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
    with ExitStack() as held:
        for _ in range(count):
            connection = held.enter_context(socket.create_connection((host, int(port))))
            connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        yield


def test_every_layer_turns_away_alike_and_health_answers(served: tuple[str, str]) -> None:
    base_url, _ = served

    def until(key: str, wanted: tuple[int, str]) -> None:
        """Ask until what was sent has arrived."""
        deadline = time.monotonic() + 60
        while (found := refusal(base_url, key)) != wanted:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    with arriving(base_url, "d", 9):
        until("d", (429, "too_many_requests"))
        assert refusal(base_url, "b")[0] == 400
        with arriving(base_url, "e", 5):
            until("c", (429, "server_full"))
            with urlopen(base_url.removesuffix("v1") + "health") as answer:
                assert json.load(answer) == {"status": "ok"}
    until("d", (400, "invalid_value"))


def test_what_is_refused_for_its_size_costs(served: tuple[str, str]) -> None:
    base_url, model = served
    url = data_url(Image.new("RGB", (4, 4)))
    pictures = [{"type": "image_url", "image_url": {"url": url}}] * 3
    large = json.dumps({"model": model, "messages": [{"role": "user", "content": pictures}]}).encode()
    small = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]}).encode()
    assert refusal(base_url, "d", content=large) == (413, "too_many_images")
    deadline = time.monotonic() + 60
    while (found := refusal(base_url, "d", content=small)) != (429, "insufficient_quota"):
        assert found == (200, None)
        assert time.monotonic() < deadline


def test_two_drivers_at_once_and_their_budgets(served: tuple[str, str], tmp_path: Path) -> None:
    base_url, model = served

    def drive(name: str, seeds: range) -> list[int]:
        config = VlmConfig(model=model, base_url=base_url, api_key_env=name.upper(), max_tokens=4)
        with connect(config, tmp_path / f"{name}{seeds.start}") as client:
            return [len(client.ask(QUESTION, 2, seed)) for seed in seeds]

    with ThreadPoolExecutor(2) as pool:
        alice, bob = pool.submit(drive, "alice", range(4)), pool.submit(drive, "bob", range(5))
        assert (alice.result(), bob.result()) == ([2] * 4, [2] * 5)
    with pytest.raises(VlmError, match="the budget of 'alice' is used up until 00:00 UTC: 4 of 4 requests today"):
        drive("alice", range(4, 5))
    assert drive("bob", range(5, 6)) == [2]


def test_who_hangs_up_pays(served: tuple[str, str]) -> None:
    base_url, model = served

    def ask(timeout_s: float, **more: int) -> None:
        client = openai.OpenAI(base_url=base_url, api_key="c", max_retries=0, timeout=timeout_s)
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}], **more)  # type: ignore[call-overload]

    for _ in range(2):
        with pytest.raises(openai.APITimeoutError):
            ask(0.2, max_tokens=400, n=8)
    with pytest.raises(openai.RateLimitError, match="6402 of 6402 tokens today, and this may take 5"):
        ask(60)


def test_a_replica_killed_in_mid_answer(served: tuple[str, str], tmp_path: Path) -> None:
    base_url, model = served
    config = VlmConfig(model=model, base_url=base_url, api_key_env="BOB", max_tokens=400)
    with connect(config, tmp_path) as client, ThreadPoolExecutor(1) as pool:
        client.ask(QUESTION, 1, 0)
        answer = pool.submit(client.ask, QUESTION, 8, 1)
        time.sleep(0.5)
        assert not answer.done()
        name = f"SERVE_REPLICA::vlm#VlmModel#{replica('VlmModel')}"
        ray.kill(ray.get_actor(name, namespace="serve"))
        assert len(answer.result()) == 8


def test_what_prometheus_is_told(served: tuple[str, str]) -> None:
    def requests(client: str, status: str, count: int) -> float:
        return reported(REQUESTS, count, replica=replica("VlmFront"), client=client, status=status)[REQUESTS]

    assert requests("bob", "200", 10) == 2 + 5 + 1 + 2
    assert requests("bob", "429", 4) == 4
    assert requests("bob", "503", 1) == 1
    assert requests("carol", "499", 2) == 2
    assert requests("alice", "429", 1) == 1
    assert requests("unknown", "401", 1) == 1
    alice = reported("ray_carl_vlm_request_seconds_count", 4, replica=replica("VlmFront"), client="alice")
    assert alice["ray_carl_vlm_request_seconds_count"] == 4
    assert 0 < alice["ray_carl_vlm_completion_tokens_total"] <= 4 * 2 * 4
    assert alice["ray_carl_vlm_prompt_tokens_total"] > alice["ray_carl_vlm_completion_tokens_total"]
