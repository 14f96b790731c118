"""Batcher: one engine answers concurrent requests, and the samples of one request, in common batches."""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Sequence
from typing import Protocol

from ray.serve.metrics import Counter, Histogram

from carl.serving.prompt import Completion, Prompt, PromptError

MAX_FAILURES = 3
"""Batches in a row at which an engine may fail before its replica is replaced."""

SIZES = [*(size + 0.5 for size in range(17)), 32.5, 64.5, 128.5]
"""Bounds of the histogram. Ray adds up the middles of its bins: up to 16, these are the sizes themselves."""


class Engine(Protocol):
    """The part of VlmEngine that a Batcher uses."""

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """One completion per prompt, in order; raises PromptError if one cannot be taken, then none is answered."""


Answer = Completion | PromptError
Waiting = tuple[Prompt, asyncio.Future[Completion]]


class Batcher:
    """Collects prompts while the engine is busy, then for up to ``wait_s`` more, and runs the engine in a thread.

    Serve's own ``serve.batch`` closes a batch ``wait_s`` after its first prompt although another is still under way:
    with 32 clients in a closed loop, batches of at most 16 held 4 to 7 prompts.
    """

    def __init__(self, engine: Engine, max_batch_size: int, wait_s: float) -> None:
        self._engine, self._max_batch_size, self._wait_s = engine, max_batch_size, wait_s
        self._waiting: list[Waiting] = []
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._failures = 0
        self._sizes = Histogram("carl_vlm_batch_size", "Answers generated together.", SIZES)
        self._seconds = Counter("carl_vlm_generation_seconds", "Time spent generating.")

    async def answer(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """Answers in order; raises PromptError if the model cannot take one, and what the engine raises."""
        return await asyncio.gather(*[self._entered(prompt) for prompt in prompts])

    def check_health(self) -> None:
        """Raise RuntimeError if the engine failed at its last MAX_FAILURES batches, as a GPU in error does."""
        if self._failures >= MAX_FAILURES:
            raise RuntimeError(f"the engine failed at the last {self._failures} batches")

    def _entered(self, prompt: Prompt) -> asyncio.Future[Completion]:
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.append((prompt, future))
        self._arrived.set()
        if self._worker is None or self._worker.done():  # with an empty context, as it works for many requests
            self._worker = asyncio.create_task(self._work(), context=contextvars.Context())
        return future

    async def _work(self) -> None:
        """Batch after batch, until nothing waits."""
        while self._waiting:
            await self._company()
            self._forget_who_hung_up()
            batch, self._waiting = self._waiting[: self._max_batch_size], self._waiting[self._max_batch_size :]
            if batch:
                await self._settle(batch)
                self._forget_who_hung_up()
        self._worker = None

    def _forget_who_hung_up(self) -> None:
        self._waiting = [(prompt, future) for prompt, future in self._waiting if not future.done()]

    async def _company(self) -> None:
        """Wait until a batch is full, but at most ``wait_s``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                while len(self._waiting) < self._max_batch_size:
                    self._arrived.clear()
                    await self._arrived.wait()

    async def _settle(self, batch: Sequence[Waiting]) -> None:
        prompts, futures = zip(*batch, strict=True)
        try:
            answers: Sequence[Answer | Exception] = await asyncio.to_thread(self._answer, prompts)
            if len(answers) != len(batch):
                raise RuntimeError(f"the engine gave {len(answers)} answers to {len(batch)} prompts")
        except Exception as error:  # whatever an engine raises is raised to each of its callers
            answers = [error] * len(batch)
        for future, answer in zip(futures, answers, strict=True):
            if future.done():  # the caller hung up
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        start = time.monotonic()
        self._failures += 1
        answers = self._generated(prompts)
        self._failures = 0
        self._sizes.observe(len(prompts), {})
        self._seconds.inc(time.monotonic() - start, {})
        return answers

    def _generated(self, prompts: Sequence[Prompt]) -> list[Answer]:
        try:
            return list(self._engine.generate(prompts))
        except PromptError as error:
            if len(prompts) == 1:
                return [error]
        return [self._alone(prompt) for prompt in prompts]  # so that only the prompt at fault fails

    def _alone(self, prompt: Prompt) -> Answer:
        try:
            return self._engine.generate([prompt])[0]
        except PromptError as error:
            return error
