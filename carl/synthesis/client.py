"""The client of any server that speaks OpenAI's chat completions, recording whatever it asks."""

import base64
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from carl.config import VlmConfig
from carl.errors import VlmError
from carl.metrics import tell
from carl.progress import Progress, silent, working
from carl.synthesis.exchange import Draw, Exchange, Question, Recording, Usage, digest, png

LOOPBACK = ("127.0.0.1", "localhost", "::1")
JOURNAL = "exchanges.jsonl"
LONGEST_PAUSE_S = 30.0


class LiveModel:
    """A model at a server. Timeouts, refused connections, 429 and 5xx are retried ``max_retries`` times.

    After these, a server that says it is full or not up yet (429, 503) is asked again until ``patience_s`` has passed.
    """

    def __init__(self, config: VlmConfig, base_url: str) -> None:
        import openai

        self._config, self._base_url = config, base_url
        self._renamed: dict[str, str | None] = {}
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=os.environ.get(config.api_key_env, "").strip() or "none",
            timeout=config.timeout_s,
            max_retries=config.max_retries,
            # a proxy set for the outside world does not know this machine's own servers
            http_client=openai.DefaultHttpxClient(trust_env=urlsplit(base_url).hostname not in LOOPBACK),
        )

    def answer(self, question: Question, draw: Draw) -> tuple[tuple[str, ...], Usage]:
        """The drawn answers and what they cost; raises VlmError. Some servers give fewer answers than asked for."""
        start = time.monotonic()
        completion = self._create({"messages": _wire(question), **draw.model_dump()})
        try:
            answers = tuple(_said(choice.message) for choice in completion.choices)
        except (AttributeError, KeyError, TypeError):  # the library does not check what it was sent
            answers = ()
        if not answers:
            raise VlmError(f"{self._base_url} answered something that is no chat completion; is it the right address?")
        return answers, _usage(completion, len(answers), time.monotonic() - start)

    def close(self) -> None:
        self._client.close()

    def _create(self, params: dict[str, Any]) -> Any:
        """Ask; where a server says it does not take a parameter, ask again without it, and remember."""
        import openai

        deadline = time.monotonic() + self._config.patience_s
        attempt = 0
        while True:
            try:
                return self._client.chat.completions.create(model=self._config.model, **self._known(params))
            except openai.BadRequestError as error:
                if not self._learned(params, error.param):
                    raise VlmError(f"the server at {self._base_url} refuses the request: {error}") from error
            except openai.OpenAIError as error:
                pause = _pause(error, attempt)
                if pause is None or time.monotonic() + pause > deadline:
                    raise VlmError(self._explained(error)) from error
                time.sleep(pause)
                attempt += 1

    def _known(self, params: dict[str, Any]) -> dict[str, Any]:
        named = {self._renamed.get(name, name): value for name, value in params.items()}
        return {name: value for name, value in named.items() if name is not None}

    def _learned(self, params: dict[str, Any], refused: str | None) -> bool:
        """Newer models of OpenAI's take neither max_tokens nor a temperature, and say so by name."""
        if refused not in params or refused == "messages" or refused in self._renamed:
            return False
        self._renamed[refused] = "max_completion_tokens" if refused == "max_tokens" else None
        return True

    def _explained(self, error: Exception) -> str:
        import openai

        config, where = self._config, f"the VLM server at {self._base_url}"
        match error:
            case openai.APITimeoutError():
                return f"{where} did not answer within {config.timeout_s:g} s; raise vlm.timeout_s or ask a faster one"
            case openai.APIConnectionError():
                return f"{where} cannot be reached ({error.__cause__ or error}); start it, or set vlm.base_url"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return f"{where} refuses the token; put the right one into the variable {config.api_key_env}"
            case openai.NotFoundError():
                return f"{where} does not know the model {config.model!r}; set vlm.model or vlm.base_url ({error})"
            case openai.RateLimitError(code="insufficient_quota"):
                return f"{where} gives no more today: {error}"
            case openai.RateLimitError():
                return f"{where} still turns requests away after {config.patience_s:g} s: {error}"
            case _:
                return f"{where} failed: {error}"


def _pause(error: Exception, attempt: int) -> float | None:
    """Seconds until a server that turned a request away should be asked again; None: not again."""
    import openai

    if not isinstance(error, openai.APIStatusError) or error.status_code not in (429, 503):
        return None
    if error.code == "insufficient_quota":  # money or a budget is used up, for hours
        return None
    try:
        return max(1.0, float(error.response.headers["retry-after"]))
    except (KeyError, ValueError):
        return min(LONGEST_PAUSE_S, 2.0**attempt)


def _wire(question: Question) -> list[dict[str, Any]]:
    pictures = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(png(frame)).decode()}"}}
        for frame in question.frames
    ]
    return [
        {"role": "system", "content": question.system},
        {"role": "user", "content": [*pictures, {"type": "text", "text": question.user}]},
    ]


def _said(message: Any) -> str:
    """A message's text, which some servers send in parts."""
    content = message.content or message.refusal or ""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str):
        raise TypeError(content)
    return content


def _usage(completion: Any, samples: int, seconds: float) -> Usage:
    counted = getattr(completion, "usage", None)
    return Usage(
        calls=1,
        samples=samples,
        prompt_tokens=getattr(counted, "prompt_tokens", None) or 0,
        completion_tokens=getattr(counted, "completion_tokens", None) or 0,
        seconds=seconds,
    )


class VlmClient:
    """Asks the recording first and the model next, and writes down every exchange.

    Attributes:
        usage: what all answers so far cost, those from a recording included: it is the cost of this synthesis.
    """

    def __init__(
        self, config: VlmConfig, journal: Recording, live: LiveModel | None = None, replay: Recording | None = None
    ) -> None:
        self._config, self._journal, self._live, self._replay = config, journal, live, replay
        self.usage = Usage()

    @property
    def model(self) -> str:
        return self._config.model

    def ask(self, question: Question, n: int, seed: int) -> tuple[str, ...]:
        """Up to ``n`` answers to a question; raises VlmError. The same question and seed give the same again."""
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
        return exchange.answers

    def _fresh(self, question: Question, draw: Draw) -> Exchange:
        name = digest(self._config.model, question, draw)
        found = self._replay.find(name) if self._replay else None
        if found is not None:
            return found
        exchange = Exchange(
            digest=name, model=self.model, prompt=question.prompt, messages=tuple(question.messages()), draw=draw
        )
        try:
            answers, usage = self._asked(question, draw)
        except VlmError as error:
            return exchange.model_copy(update={"error": str(error)})
        return exchange.model_copy(update={"answers": answers, "usage": usage})

    def _asked(self, question: Question, draw: Draw) -> tuple[tuple[str, ...], Usage]:
        if self._live is None:
            where = self._replay.path if self._replay else self._journal.path
            raise VlmError(
                f"a request ({question.prompt}) is not in the recording {where}; it was made with other frames, "
                "prompts, settings or another seed"
            )
        try:
            answers, usage = self._live.answer(question, draw)
        except VlmError:
            tell("carl_synthesis_requests", 1, outcome="failed")
            raise
        tell("carl_synthesis_requests", 1, outcome="answered")
        tell("carl_synthesis_tokens", usage.prompt_tokens, kind="prompt")
        tell("carl_synthesis_tokens", usage.completion_tokens, kind="completion")
        tell("carl_synthesis_seconds", usage.seconds)
        return answers, usage


@contextmanager
def connect(config: VlmConfig, folder: Path, progress: Progress = silent) -> Iterator[VlmClient]:
    """A client that records into ``folder``: of the recording, the server, or the model served here meanwhile.

    A model that is served here is gone, and its CPUs and GPUs free, when the context ends.
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
    """The fields of ServingConfig for them.

    No CPU is set aside unless asked for: the model idles whenever candidates are verified, which wants them all.
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
