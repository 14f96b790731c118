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
