"""What the embedded VLM costs on Ray Serve: batches against one request at a time, and scale to zero. One CPU.

Requests are greedy, about different frames, and go over HTTP; the batched answers have to be the very same texts.
The two ways of asking alternate, in turns of about as many seconds each: so what else the machine does hits both, and
the first and last batches of a turn, which are not full, weigh little. The ratio is of the medians. The last line is
JSON.

    python benchmarks/serving.py --only throughput
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
from common import run

from carl.config import EMBEDDED_MODEL, VlmConfig
from carl.episodes.play import made
from carl.serving.local import serving
from carl.synthesis.author import NAME_LINE
from carl.tasks import get_task
from carl.vlm.exchange import Draw, Question
from carl.vlm.live import LiveModel

TASK = "DoorKey-8x8"
BATCH = 16
CLIENTS = 2 * BATCH
"""Clients at once: one batch fills while another is generated."""

REQUESTS = 64
ROUNDS = 4
"""How often the batched turn asks them all: at this it takes about as long as the other."""

TURNS = 5
STOPS = 3
"""Times that replicas go away and come back."""

MAX_TOKENS = 512


def questions(count: int) -> list[Question]:
    """The first request of a run, about several layouts of the room."""
    with made(get_task(TASK), 0) as env:
        frames = []
        for seed in range(count):
            env.reset(seed=seed)
            frames.append(np.asarray(env.render()))
    return [Question("decompose/1", "", NAME_LINE, (frame, frame)) for frame in frames]


@contextmanager
def served(**args: Any) -> Iterator[LiveModel]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with serving(max_batch_size=BATCH, num_cpus=1, **args) as base_url:
            model = LiveModel(VlmConfig(), base_url)
            try:
                yield model
            finally:
                model.close()
    finally:
        ray.shutdown()


def asked(model: LiveModel, about: list[Question], together: int) -> tuple[float, list[str]]:
    """Seconds that it took to ask ``together`` at a time, and the answers."""
    draw = Draw(n=1, temperature=0, max_tokens=MAX_TOKENS, seed=0)
    start = time.perf_counter()
    with ThreadPoolExecutor(together) as pool:
        answers = [got.texts[0] for got in pool.map(lambda question: model.answer(question, draw), about)]
    return time.perf_counter() - start, answers


def throughput() -> dict[str, Any]:
    about = questions(REQUESTS)
    alone, batched, same = [], [], True
    with served() as model:
        asked(model, about, CLIENTS)
        for _ in range(TURNS):
            seconds, one_by_one = asked(model, about, 1)
            alone.append(REQUESTS / seconds)
            seconds, together = asked(model, about * ROUNDS, CLIENTS)
            batched.append(ROUNDS * REQUESTS / seconds)
            same = same and one_by_one * ROUNDS == together
    return {
        "requests_per_s": {"alone": float(np.median(alone)), "batched": float(np.median(batched))},
        "times_faster": float(np.median(batched) / np.median(alone)),
        "times_faster_by_turn": [fast / slow for fast, slow in zip(batched, alone, strict=True)],
        "same_answers": same,
        "characters": float(np.mean([len(answer) for answer in one_by_one])),
    }


def to_zero() -> dict[str, Any]:
    """From the last answer to free CPUs, and from the next request to its answer."""
    [about] = questions(1)
    freed, back, warm = [], [], []
    with served(autoscaling={}) as model:
        for _ in range(STOPS):
            back.append(asked(model, [about], 1)[0])
            warm.append(asked(model, [about], 1)[0])
            start = time.perf_counter()
            while ray.available_resources().get("CPU", 0) < 2:
                time.sleep(0.1)
            freed.append(time.perf_counter() - start)
        back.append(asked(model, [about], 1)[0])
    return {"freed_s": freed, "first_answer_s": back[1:], "warm_answer_s": warm}


if __name__ == "__main__":
    run(
        "serving",
        {"throughput": throughput, "to_zero": to_zero},
        model=EMBEDDED_MODEL, task=TASK, batch=BATCH, clients=CLIENTS, requests=REQUESTS, rounds=ROUNDS, turns=TURNS,
    )  # fmt: skip
