"""The client of any server with OpenAI's chat completions. It records every exchange."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from carl.artefacts import JOURNAL
from carl.cluster.metrics import record
from carl.config import VlmConfig
from carl.console.progress import Progress, silent, working
from carl.errors import VlmError
from carl.task import Frame
from carl.vlm import prompts
from carl.vlm.exchange import Draw, Exchange, Question, Recording, Usage, digest, scale
from carl.vlm.live import Answered, LiveModel


class Answers(Protocol):
    """Who answers what is not recorded."""

    def answer(self, question: Question, draw: Draw) -> Answered:
        """Up to ``draw.n`` answers; raises VlmError."""


def _nothing() -> None:
    """There is nothing to free."""


class VlmClient:
    """Answers questions from the recording, else from the model, and records every exchange.

    Attributes:
        usage: the cost of all answers so far, those from a recording included, hence the cost of this synthesis.
        wanted: the number of answers requested; ``usage.samples`` were received.
    """

    def __init__(
        self,
        config: VlmConfig,
        journal: Recording,
        live: Answers | None = None,
        replay: Recording | None = None,
        release: Callable[[], None] = _nothing,
    ) -> None:
        self._config, self._journal, self._live, self._replay = config, journal, live, replay
        self._release = release
        self.usage = Usage()
        self.wanted = 0

    @property
    def model(self) -> str:
        """The model's name, ``vlm.model``."""
        return self._config.model

    def scale(self, frame: Frame) -> int:
        """The whole factor by which a frame ``uint8[H, W, 3]`` is enlarged before it is sent."""
        return scale(frame.shape, self._config.min_frame_px)

    def release(self) -> None:
        """Free the CPUs and GPUs of a model that is served here; the next question that is not recorded starts it anew.

        What is to run meanwhile may need them.
        """
        self._release()

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
            raise _missing(question.prompt, self._replay or self._journal)
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


def _missing(prompt: str, recording: Recording) -> VlmError:
    """The error for a request that a recording does not answer: of another version of the prompt, or else."""
    if error := _outdated(prompt, recording):
        return error
    has = ", ".join(recording.prompts) or "nothing"
    return VlmError(
        f"a request ({prompt}) is not in the recording {recording.path}, which answers {has}; it was made with other "
        "frames, prompts, settings or another seed"
    )


def _outdated(prompt: str, recording: Recording) -> VlmError | None:
    """The error for a recording that answers this prompt in other versions alone; None if it has this one, or none."""
    name = prompt.partition("/")[0] + "/"
    versions = [each for each in recording.prompts if each.startswith(name)]
    if not versions or prompt in versions:
        return None
    return VlmError(
        f"the recording {recording.path} answers {', '.join(versions)}, and this carl asks {prompt}: replay it with "
        "the carl that recorded it, or ask a model (vlm.model, vlm.base_url) and record anew"
    )


def check_recording(path: Path) -> None:
    """Raise VlmError if the recording at ``path`` is of other versions of this carl's prompts; StoreError if there is
    none, or a damaged one."""
    recording = Recording.existing(path)
    for name in prompts.NAMES:
        if error := _outdated(prompts.load(name).id, recording):
            raise error


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
        here = _ServedHere(config, progress)
        try:
            here.start()
            yield VlmClient(config, journal, here, release=here.stop)
        finally:
            here.stop()


class _ServedHere:
    """A model on Ray Serve, in this run's own cluster."""

    def __init__(self, config: VlmConfig, progress: Progress) -> None:
        self._config, self._progress = config, progress
        self._held = ExitStack()
        self._live: LiveModel | None = None

    def start(self) -> LiveModel:
        """The model, which is loaded unless it is up; raises VlmError or ResourceError if it cannot be."""
        from carl.serving.local import serving

        if self._live is None:
            with working(self._progress, "loading the VLM"):
                served = serving(self._config.model, **_reserved(self._config.resources))
                base_url = self._held.enter_context(served)
                self._live = self._held.enter_context(_live(self._config, base_url))
        return self._live

    def answer(self, question: Question, draw: Draw) -> Answered:
        """As ``LiveModel.answer``."""
        return self.start().answer(question, draw)

    def stop(self) -> None:
        """End the model if it is up."""
        self._live = None
        self._held.close()


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
