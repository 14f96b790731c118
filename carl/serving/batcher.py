"""Batcher: concurrent requests and the samples of one request, answered together by one engine."""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from ray import serve
from ray.serve.metrics import Counter, Histogram

from carl.serving.prompt import Completion, Prompt, PromptError

MAX_FAILURES = 3
"""Batches in a row at which an engine may fail before its replica is replaced."""

SIZES = [*(size + 0.5 for size in range(17)), 32.5, 64.5, 128.5]
"""Bounds of the histogram. Ray adds up the middles of its bins: up to 16, these are the sizes themselves."""


class Engine(Protocol):
    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]: ...


class Batcher:
    """Collects prompts for a moment, then asks the engine in a thread, one batch at a time."""

    def __init__(self, engine: Engine, max_batch_size: int, wait_s: float) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._failures = 0
        self._sizes = Histogram("carl_vlm_batch_size", "Answers generated together.", SIZES)
        self._seconds = Counter("carl_vlm_generation_seconds", "Time spent generating.")

        @serve.batch(max_batch_size=max_batch_size, batch_wait_timeout_s=wait_s)
        async def answer(prompts: list[Prompt]) -> list[Completion | PromptError]:
            return await asyncio.to_thread(self._answer, prompts)

        self._submit = answer

    async def answer(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """Answers in order; raises PromptError if one cannot be asked."""
        answers = await asyncio.gather(*(self._submit(prompt) for prompt in prompts))
        return [_or_raise(answer) for answer in answers]

    def check_health(self) -> None:
        """Raises RuntimeError if the engine failed at its last batches: a GPU in error does not come back."""
        if self._failures >= MAX_FAILURES:
            raise RuntimeError(f"the engine failed at the last {self._failures} batches")

    def _answer(self, prompts: list[Prompt]) -> list[Completion | PromptError]:
        with self._lock:
            start = time.monotonic()
            self._failures += 1
            answers = self._generated(prompts)
            self._failures = 0
            self._sizes.observe(len(prompts), {})
            self._seconds.inc(time.monotonic() - start, {})
            return answers

    def _generated(self, prompts: list[Prompt]) -> list[Completion | PromptError]:
        try:
            return list(self._engine.generate(prompts))
        except PromptError as error:
            if len(prompts) == 1:
                return [error]
        return [self._alone(prompt) for prompt in prompts]  # so that only the guilty one fails

    def _alone(self, prompt: Prompt) -> Completion | PromptError:
        try:
            return self._engine.generate([prompt])[0]
        except PromptError as error:
            return error


def _or_raise(answer: Completion | PromptError) -> Completion:
    if isinstance(answer, PromptError):
        raise answer
    return answer
