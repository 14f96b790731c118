"""Compare versions of the prompts: python benchmarks/prompts.py TASK ... --help.

Each version's search runs on the same episodes, and is judged on the same held-out ones. Who answers is a server
(--base-url and --model), a recording whose answers are given in their order (--recording, for one task and the version
that it was recorded with), or else the embedded model, which reads the last line of a
prompt and no other words, so that it can only show that nothing broke. Version 1 means its words (prompts_v1/) and its
pictures, initial and goal frames without captions; the order in which programs are tried is today's for both.

The last line printed is one JSON: for each task and version the requests and tokens that were spent, the candidates,
how many of them passed on the search's episodes, and whether one passed on held-out ones.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from record_exchanges import Here

from carl.artefacts import JOURNAL
from carl.cli import bars
from carl.config import EMBEDDED_MODEL, SynthesisConfig, VerifyConfig, VlmConfig
from carl.console.progress import Progress
from carl.episodes.play import rollout
from carl.errors import VlmError
from carl.seeding import Role, seeds_of
from carl.serving.engine import VlmEngine
from carl.synthesis.search import Found, HeldOutGate, SearchGate, search
from carl.synthesis.shown import Episodes, Examples
from carl.synthesis.tried import Budget
from carl.synthesis.vlm_proposer import VlmProposer
from carl.task import Task
from carl.tasks import get_task
from carl.verification import verify
from carl.verification.rule import Evidence
from carl.vlm import prompts
from carl.vlm.client import VlmClient, connect
from carl.vlm.exchange import Draw, Exchange, Question, Recording
from carl.vlm.live import Answered
from carl.vlm.prompts import NAMES, PromptFile

FIRST = Path(__file__).parent / "prompts_v1"
PAIRS = 2
TODAY = int(prompts.load(NAMES[0]).id.partition("/")[2])


class InOrder:
    """Gives the answers of a recording to requests with the same last line, in the order of the recording."""

    def __init__(self, path: Path) -> None:
        Recording.existing(path)
        self._exchanges = [Exchange.model_validate_json(line) for line in path.read_text().splitlines()]
        self._given: Counter[str] = Counter()

    @property
    def version(self) -> int:
        """Of the prompts that were answered."""
        return int(self._exchanges[0].prompt.partition("/")[2])

    def answer(self, question: Question, draw: Draw) -> Answered:
        line = _last_line(question.user)
        same = [each for each in self._exchanges if _last_line(each.messages[-1]["content"][-1]["text"]) == line]
        if self._given[line] >= len(same):
            raise VlmError(f"the recording has {len(same)} answers to {line!r}, and one more is asked for")
        found = same[self._given[line]]
        self._given[line] += 1
        return Answered(found.answers[: draw.n], found.ends[: draw.n], found.usage)


def _last_line(text: str) -> str:
    return text.splitlines()[-1]


class Bare(VlmClient):
    """A client that leaves captions out, as in version 1."""

    def __init__(self, client: VlmClient) -> None:
        self.__dict__ = client.__dict__

    def exchange(self, question: Question, n: int, seed: int) -> Exchange:
        return super().exchange(replace(question, captions=()), n, seed)


def episodes(task: Task, role: tuple[Role, Role], experts: int, randoms: int, progress: Progress) -> Episodes:
    """Expert episodes, and random play cut at four times the longest of them."""
    seeds = seeds_of(0, role[0], experts, 2), seeds_of(0, role[1], randoms, 3)
    solved = [rollout(task, seed, "expert") for seed in seeds[0]]
    cut = 4 * max(map(len, solved))
    played = []
    for seed in seeds[1]:
        played.append(rollout(task, seed, "random", cut))
        progress(f"{task.name}: playing", len(played), randoms)
    return {Evidence.EXPERTS: [each for each in solved if each.success], Evidence.RANDOMS: played}


def searched(task: Task, version: int, client: VlmClient, sets: tuple[Episodes, Episodes], samples: int) -> Found:
    """A search with one version of the prompts."""
    found, held_out = sets
    config = VerifyConfig(min_randoms=min(len(list(each[Evidence.RANDOMS])) for each in sets))
    gate = SearchGate(
        lambda program: verify(program, found, config),
        HeldOutGate(lambda program, _: verify(program, held_out, config)),
    )
    settings = SynthesisConfig(pairs=PAIRS, samples=samples, **({"pictures": 2 * PAIRS} if version == 1 else {}))
    files = {name: PromptFile.parse(name, (FIRST / f"{name}.md").read_text()) for name in NAMES}
    asked = Bare(client) if version == 1 else client
    examples = Examples.chosen(found, PAIRS)
    proposer = VlmProposer(task.description, examples, asked, settings, files=files if version == 1 else None)
    return search([proposer], gate, Budget(calls=settings.max_requests))


@contextmanager
def client_of(config: VlmConfig, recording: Path | None) -> Iterator[VlmClient]:
    """Who answers: a recording in its order, a server, or the embedded model in this process."""
    with TemporaryDirectory() as folder:
        journal = Recording(Path(folder) / JOURNAL)
        if recording:
            yield VlmClient(config, journal, InOrder(recording))
        elif config.base_url:
            with connect(config, Path(folder)) as client:
                yield client
        else:
            yield VlmClient(config, journal, Here(VlmEngine.load(EMBEDDED_MODEL, threads=1)))


def compared(
    task: Task, version: int, config: VlmConfig, recording: Path | None, sets: tuple[Episodes, Episodes], samples: int
) -> dict[str, Any]:
    """The figures of one search."""
    with client_of(config, recording) as client:
        try:
            found = searched(task, version, client, sets, samples)
        except VlmError as error:
            return {"error": str(error), "requests": client.usage.calls}
    return {
        "requests": found.spent.calls,
        "tokens": found.spent.tokens,
        "candidates": len(found.candidates),
        "accepted": sum(each.report.accepted for each in found.candidates),
        "held_out": found.program is not None,
        "outcome": found.outcome,
    }


def main(
    tasks: Annotated[list[str], typer.Argument(help="Tasks, as for carl run.")],
    recording: Annotated[Path | None, typer.Option(help="Exchanges to take answers from, of one task.")] = None,
    base_url: Annotated[str | None, typer.Option(help="A server with OpenAI's chat completions.")] = None,
    model: Annotated[str, typer.Option(help="The model's name there.")] = EMBEDDED_MODEL,
    min_frame_px: Annotated[int, typer.Option(help="Enlarge frames to this.")] = 0,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 1024,
    samples: Annotated[int, typer.Option(help="Answers to a request.")] = 1,
    experts: Annotated[int, typer.Option(help="Expert episodes, and as many held out.")] = 20,
    randoms: Annotated[int, typer.Option(help="Random episodes, and as many held out.")] = 100,
    version: Annotated[list[int] | None, typer.Option(help="Versions of the prompts, else 1 and today's.")] = None,
) -> None:
    """Run the searches and print what they took."""
    if recording and len(tasks) > 1:
        sys.exit("--recording is of one task")
    config = VlmConfig(model=model, base_url=base_url, min_frame_px=min_frame_px, max_tokens=max_tokens)
    results: dict[str, Any] = {}
    with bars() as progress:
        for name in tasks:
            task = get_task(name)
            roles = ((Role.EXPERT, Role.RANDOM), (Role.HELD_OUT, Role.HELD_OUT))
            first, second = (episodes(task, role, experts, randoms, progress) for role in roles)
            results[name] = {
                f"version {number}": compared(task, number, config, recording, (first, second), samples)
                for number in version or ([InOrder(recording).version] if recording else [1, TODAY])
            }
    who = str(recording) if recording else model
    setting = {"answers": who, "samples": samples, "experts": experts, "randoms": randoms}
    print(json.dumps({"benchmark": "prompts", "setting": setting, **results}))


if __name__ == "__main__":
    typer.run(main)
