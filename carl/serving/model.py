"""The deployment that holds the model: one replica, one VlmEngine."""

from collections.abc import Sequence

from ray import serve

from carl.serving.batcher import Batcher
from carl.serving.config import ServingConfig
from carl.serving.prompt import Completion, Prompt, PromptError


@serve.deployment
class VlmModel:
    """Answers prompts that the front has checked. It has no route."""

    def __init__(self, config: ServingConfig) -> None:
        from carl.serving.engine import VlmEngine

        engine = VlmEngine.load(config.model, config.threads)
        self._batcher = Batcher(engine, config.max_batch_size, config.batch_wait_s)

    async def answer(self, prompts: Sequence[Prompt]) -> list[Completion] | PromptError:
        """One answer per prompt, or the error of the first that the model cannot take."""
        try:
            return await self._batcher.answer(prompts)
        except PromptError as error:
            return error

    def check_health(self) -> None:
        """Raise if the engine fails. Serve calls this every few seconds and replaces a replica after three failures."""
        self._batcher.check_health()
