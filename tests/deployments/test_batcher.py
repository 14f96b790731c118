import asyncio
import threading
from collections.abc import Sequence

import pytest

from carl.serving.batcher import MAX_FAILURES, Batcher
from carl.serving.prompt import Completion, Prompt, PromptError, Sampling

PROMPT = Prompt((), Sampling())


class Engine:
    """Fails while ``broken``."""

    broken = False

    def generate(self, prompts: list[Prompt]) -> list[Completion]:
        if self.broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        if len(prompts) == 3:
            raise PromptError("too long")
        return [Completion("yes", "stop", 1, 1)] * len(prompts)


def test_a_replica_is_ill_while_its_engine_fails_every_time(ray_cluster: None) -> None:
    engine = Engine()
    batcher = Batcher(engine, max_batch_size=4, wait_s=0)
    for _ in range(2):
        engine.broken = True
        for _ in range(MAX_FAILURES):
            batcher.check_health()
            with pytest.raises(RuntimeError, match="CUDA"):
                batcher._answer([PROMPT])
        with pytest.raises(RuntimeError, match="failed at the last 3 batches"):
            batcher.check_health()
        engine.broken = False
        assert len(batcher._answer([PROMPT, PROMPT])) == 2
        batcher.check_health()
    for _ in range(MAX_FAILURES):
        assert len(batcher._answer([PROMPT] * 3)) == 3  # a prompt's fault is not the engine's
    batcher.check_health()


class Slow:
    """Answers when ``go`` is set, and notes whom together."""

    def __init__(self) -> None:
        self.asked: list[list[int | None]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]:
        numbers = [prompt.sampling.max_tokens for prompt in prompts]
        self.asked.append(numbers)
        self.begun.set()
        assert self.go.wait(10)
        if 99 in numbers:
            raise RuntimeError("CUDA error")
        if 77 in numbers:
            return []
        return [Completion(str(number), "stop", 1, 1) for number in numbers]


def numbered(number: int) -> Prompt:
    return Prompt((), Sampling(max_tokens=number))


def test_who_comes_while_the_engine_is_busy_is_asked_together(ray_cluster: None) -> None:
    engine = Slow()
    batcher = Batcher(engine, max_batch_size=4, wait_s=0.01)

    async def ask() -> list[list[Completion]]:
        first = asyncio.create_task(batcher.answer([numbered(0)]))
        await asyncio.to_thread(engine.begun.wait, 10)
        later = []
        for number in range(1, 8):  # each after the moment that a batch waits for company
            later.append(asyncio.create_task(batcher.answer([numbered(number)])))
            await asyncio.sleep(0.02)
        later.pop(2).cancel()
        engine.go.set()
        return await asyncio.gather(first, *later)

    answers = asyncio.run(ask())
    assert [answer.text for [answer] in answers] == ["0", "1", "2", "4", "5", "6", "7"]
    assert engine.asked == [[0], [1, 2, 4, 5], [6, 7]]


def test_what_an_engine_raises_reaches_all_who_asked_and_nobody_else(ray_cluster: None) -> None:
    engine = Slow()
    engine.go.set()
    batcher = Batcher(engine, max_batch_size=2, wait_s=0.01)

    async def ask() -> list[list[Completion] | BaseException]:
        asked = [batcher.answer([numbered(number)]) for number in (1, 99, 3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = asyncio.run(ask())
    assert [str(first), str(second)] == ["CUDA error"] * 2
    assert isinstance(third, list)
    assert third[0].text == "3"


def test_an_engine_that_loses_answers_is_told_of_and_asked_again(ray_cluster: None) -> None:
    engine = Slow()
    engine.go.set()
    batcher = Batcher(engine, max_batch_size=2, wait_s=0)

    async def ask() -> Completion:
        with pytest.raises(RuntimeError, match="0 answers to 1 prompts"):
            await batcher.answer([numbered(77)])
        [answer] = await asyncio.wait_for(batcher.answer([numbered(1)]), 10)
        return answer

    assert asyncio.run(ask()).text == "1"
