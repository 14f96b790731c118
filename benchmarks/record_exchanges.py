"""Record the embedded model's answers for the tests anew: python benchmarks/record_exchanges.py [TASK ...].

The tests replay them from tests/recordings; they have to be recorded anew when prompts, what is shown, or the embedded
model change. No other model is recorded: where the embedded one does not know a task, there is no recording.
"""

import shutil
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from carl.artefacts import JOURNAL
from carl.config import EMBEDDED_MODEL
from carl.serving.engine import VlmEngine
from carl.serving.prompt import Prompt, Sampling
from carl.vlm.client import VlmClient
from carl.vlm.exchange import STOPPED, Draw, Question, Recording, Usage
from carl.vlm.live import Answered
from tests.recordings import FOLDER, TASKS, VLM, first_of


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


def main(tasks: list[str]) -> None:
    engine = VlmEngine.load(EMBEDDED_MODEL, threads=1)
    for task in tasks or TASKS:
        shutil.rmtree(FOLDER / task, ignore_errors=True)
        client = VlmClient(VLM, Recording(FOLDER / task / JOURNAL), Here(engine))
        _, report = first_of(task, client)
        print(f"{task}: {client.usage.calls} requests, {'accepted' if report.accepted else report.evidence()}")
        if not report.accepted:
            sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
