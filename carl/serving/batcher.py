"""Batcher: concurrent requests and the samples of one request, answered together by one engine."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Protocol

from ray import serve

from carl.serving.prompt import Completion, Prompt, PromptError


class Engine(Protocol):
    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]: ...


class Batcher:
    """Collects prompts for a moment, then asks the engine in a thread, one batch at a time.

    Attributes:
        batches, prompts, largest: how many there were, for the health route.
    """

    def __init__(self, engine: Engine, max_batch_size: int, wait_s: float) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self.batches = self.prompts = self.largest = 0

        @serve.batch(max_batch_size=max_batch_size, batch_wait_timeout_s=wait_s)
        async def answer(prompts: list[Prompt]) -> list[Completion | PromptError]:
            return await asyncio.to_thread(self._answer, prompts)

        self._submit = answer

    async def answer(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """Answers in order; raises PromptError if one cannot be asked."""
        answers = await asyncio.gather(*(self._submit(prompt) for prompt in prompts))
        return [_or_raise(answer) for answer in answers]

    def _answer(self, prompts: list[Prompt]) -> list[Completion | PromptError]:
        with self._lock:
            self.batches += 1
            self.prompts += len(prompts)
            self.largest = max(self.largest, len(prompts))
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
