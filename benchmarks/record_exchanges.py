"""Record models' answers for the tests anew: python benchmarks/record_exchanges.py [TASK ...] [--base-url URL].

The tests replay them from tests/recordings; they have to be recorded anew when prompts, what is shown, or the embedded
model change. The embedded model answers for the tasks that it knows; for others a strong vision-language model does, at
a server with OpenAI's chat completions. Exits with status 1 if the gate accepts none of a task's programs.
"""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from carl.artefacts import JOURNAL
from carl.config import EMBEDDED_MODEL
from carl.serving.engine import VlmEngine
from carl.serving.prompt import Prompt, Sampling
from carl.vlm.client import VlmClient
from carl.vlm.exchange import STOPPED, Draw, Question, Recording, Usage
from carl.vlm.live import Answered, LiveModel
from tests.recordings import FOLDER, SERVED, TASKS, found_of, settings_of


class Here:
    """A model in this process."""

    def __init__(self, engine: VlmEngine) -> None:
        self._engine = engine

    def answer(self, question: Question, draw: Draw) -> Answered:
        messages = question.messages(lambda frame: {"type": "image", "image": Image.fromarray(frame)})
        system, user = messages
        messages = ({**system, "content": [{"type": "text", "text": system["content"]}]}, user)
        prompts = [
            Prompt(messages, Sampling(draw.temperature, max_tokens=draw.max_tokens, seed=(draw.seed, index)))
            for index in range(draw.n)
        ]
        done = self._engine.generate(prompts)
        usage = Usage(
            calls=1,
            samples=draw.n,
            prompt_tokens=done[0].prompt_tokens,
            completion_tokens=sum(each.completion_tokens for each in done),
        )
        return Answered(tuple(each.text for each in done), (STOPPED,) * draw.n, usage)


def main(
    tasks: Annotated[list[str] | None, typer.Argument(help="Built-in tasks, else all that can be answered.")] = None,
    base_url: Annotated[str, typer.Option(help="The server of the strong model.")] = "",
) -> None:
    """Ask, and keep what is answered in tests/recordings."""
    engine = VlmEngine.load(EMBEDDED_MODEL, threads=1)
    refused = False
    for task in tasks or (*TASKS, *(SERVED if base_url else ())):
        shutil.rmtree(FOLDER / task, ignore_errors=True)
        settings = settings_of(task)
        model = Here(engine) if task in TASKS else LiveModel(settings, base_url)
        client = VlmClient(settings, Recording(FOLDER / task / JOURNAL), model)
        _, report = found_of(task, client)
        verdict = "accepted" if report.accepted else report.evidence()
        print(f"{task}: {client.usage.calls} requests, {verdict}", flush=True)
        refused |= not report.accepted
    sys.exit(refused)


if __name__ == "__main__":
    typer.run(main)
