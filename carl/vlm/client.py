"""The client of any server with OpenAI's chat completions. It records every exchange."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from carl.artefacts import JOURNAL
from carl.cluster.metrics import record
from carl.config import VlmConfig
from carl.console.progress import Progress, silent, working
from carl.errors import VlmError
from carl.vlm.exchange import Draw, Exchange, Question, Recording, Usage, digest
from carl.vlm.live import Answered, LiveModel


class VlmClient:
    """Answers questions from the recording, else from the model, and records every exchange.

    Attributes:
        usage: the cost of all answers so far, those from a recording included, hence the cost of this synthesis.
        wanted: the number of answers requested; ``usage.samples`` were received.
    """

    def __init__(
        self, config: VlmConfig, journal: Recording, live: LiveModel | None = None, replay: Recording | None = None
    ) -> None:
        self._config, self._journal, self._live, self._replay = config, journal, live, replay
        self.usage = Usage()
        self.wanted = 0

    @property
    def model(self) -> str:
        """The model's name, ``vlm.model``."""
        return self._config.model

    def ask(self, question: Question, n: int, seed: int) -> tuple[str, ...]:
        """Up to ``n`` answers to a question; raises VlmError. The same question and seed give the same answers."""
        return self.exchange(question, n, seed).answers

    def exchange(self, question: Question, n: int, seed: int) -> Exchange:
        """As ``ask``, with the end of each answer and their cost."""
        config = self._config
        question = question.enlarged(config.min_frame_px)
        draw = Draw(n=n, temperature=config.temperature, max_tokens=config.max_tokens, seed=seed)
        exchange = self._journal.find(digest(config.model, question, draw))
        if exchange is None:
            exchange = self._fresh(question, draw)
            self._journal.add(exchange, question.frames)
        if exchange.error is not None:
            raise VlmError(exchange.error)
        self.usage += exchange.usage
        self.wanted += n
        return exchange

    def _fresh(self, question: Question, draw: Draw) -> Exchange:
        name = digest(self._config.model, question, draw)
        found = self._replay.find(name) if self._replay else None
        if found is not None:
            return found
        exchange = Exchange(
            digest=name, model=self.model, prompt=question.prompt, messages=tuple(question.messages()), draw=draw
        )
        try:
            got = self._asked(question, draw)
        except VlmError as error:
            return exchange.model_copy(update={"error": str(error)})
        return exchange.model_copy(update={"answers": got.texts, "ends": got.ends, "usage": got.usage})

    def _asked(self, question: Question, draw: Draw) -> Answered:
        if self._live is None:
            where = self._replay.path if self._replay else self._journal.path
            raise VlmError(
                f"a request ({question.prompt}) is not in the recording {where}; it was made with other frames, "
                "prompts, settings or another seed"
            )
        try:
            got = self._live.answer(question, draw)
        except VlmError:
            record("carl_synthesis_requests", 1, outcome="failed")
            raise
        record("carl_synthesis_requests", 1, outcome="answered")
        record("carl_synthesis_tokens", got.usage.prompt_tokens, kind="prompt")
        record("carl_synthesis_tokens", got.usage.completion_tokens, kind="completion")
        record("carl_synthesis_seconds", got.usage.seconds)
        return got


@contextmanager
def connect(config: VlmConfig, folder: Path, progress: Progress = silent) -> Iterator[VlmClient]:
    """A client that records into ``folder``. It asks ``vlm.recording``, ``vlm.base_url``, or else a model served here.

    A model that was served here has ended, and its CPUs and GPUs are free, when the context ends.
    """
    journal = Recording(folder / JOURNAL)
    if config.recording is not None:
        yield VlmClient(config, journal, replay=Recording.existing(config.recording))
    elif config.base_url is not None:
        with _live(config, config.base_url) as live:
            yield VlmClient(config, journal, live)
    else:
        from carl.serving.local import serving

        with ExitStack() as held:
            with working(progress, "loading the VLM"):
                base_url = held.enter_context(serving(config.model, **_reserved(config.resources)))
                live = held.enter_context(_live(config, base_url))
            yield VlmClient(config, journal, live)


def _reserved(resources: Mapping[str, float] | None) -> dict[str, Any]:
    """The fields of ServingConfig for ``vlm.resources``.

    No CPU is reserved by default: the model is idle while candidates are verified, which uses all of them.
    """
    if resources is None:
        return {"num_cpus": 0}
    custom = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU")}
    return {"num_cpus": resources.get("CPU", 0), "num_gpus": resources.get("GPU", 0), "resources": custom}


@contextmanager
def _live(config: VlmConfig, base_url: str) -> Iterator[LiveModel]:
    live = LiveModel(config, base_url)
    try:
        yield live
    finally:
        live.close()
