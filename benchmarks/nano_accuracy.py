"""How often the embedded model's answers verify on the built-in tasks: python benchmarks/nano_accuracy.py --help.

A scene is the initial and goal frames of two expert episodes on seeds that training never sees. A first answer is the
greedy decomposition with the greedy program of each of its sub-tasks; it counts if the whole program passes
verification on episodes of that task. Where it does not, eight answers are sampled, and one that passes counts for
"best of eight"; where first answers never fail, that share has measured nothing. Shares come with Wilson's 95 %
interval, which takes scenes as independent: see how many of them differ at all. The last line printed is one JSON.

A built-in task's programs name no colour, so an answer that misreads one still verifies. How often the sub-tasks are
named exactly is what ``jobs/train_nano.py`` prints at its end.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from carl.cli import bars
from carl.config import EMBEDDED_MODEL, VerifyConfig
from carl.console.progress import Progress
from carl.episodes.play import made, play
from carl.episodes.trajectory import Trajectory
from carl.errors import ProgramError
from carl.methods.code import CodeConfig
from carl.program import RewardProgram, SubTask
from carl.runs.resolve import by_default
from carl.seeding import Role, seed_of, seeds_of
from carl.serving.engine import VlmEngine
from carl.serving.prompt import Prompt, Sampling
from carl.statistics import wilson_interval
from carl.synthesis.author import NAME_LINE, WRITE_LINE
from carl.synthesis.parse import Plan, parse_code, parse_plan
from carl.task import Frame, Task
from carl.tasks import get_task
from carl.verification import Evidence, verify

TASKS = ("Empty-8x8", "DoorKey-5x5", "DoorKey-6x6", "DoorKey-8x8", "DoorKey-16x16", "Unlock", "UnlockPickup")
CARD_START, CARD_END = "<!-- accuracy -->", "<!-- /accuracy -->"
BATCH = 16
"""Requests answered together."""

Scene = tuple[Frame, ...]
Answer = RewardProgram | None
"""None: some part of the answer could not be read."""


@dataclass
class Judge:
    """Verifies programs on one task's episodes, each distinct one once."""

    episodes: dict[Evidence, list[Trajectory]]
    seen: dict[tuple[str, ...], bool] = field(default_factory=dict)

    def accepts(self, answer: Answer) -> bool:
        if answer is None:
            return False
        key = tuple(subtask.code for subtask in answer.subtasks)
        if key not in self.seen:
            self.seen[key] = verify(answer, self.episodes, VerifyConfig()).accepted
        return self.seen[key]


class Asker:
    """Puts both stages of synthesis to the model, many scenes at a time."""

    def __init__(self, engine: VlmEngine, task: Task, max_tokens: int = 512) -> None:
        self._engine, self._task, self._max_tokens = engine, task, max_tokens

    def answers(self, scenes: Sequence[Scene], temperature: float, seed: int = 0) -> list[Answer]:
        """One program for each scene."""
        texts = self._ask([(scene, NAME_LINE) for scene in scenes], temperature, (seed, 0))
        plans = [_parsed(parse_plan, text) for text in texts]
        wanted = [(row, index) for row, plan in enumerate(plans) if plan for index in range(len(plan.steps))]
        asked = [(scenes[row], _write_line(plans[row], index)) for row, index in wanted]
        written = self._ask(asked, temperature, (seed, 1))
        sources = {key: _parsed(parse_code, text) for key, text in zip(wanted, written, strict=True)}
        return [_program(plan, [sources.get((row, index)) for index in range(8)]) for row, plan in enumerate(plans)]

    def _ask(self, asked: Sequence[tuple[Scene, str]], temperature: float, seed: tuple[int, int]) -> list[str]:
        prompts = [
            Prompt(
                self._messages(scene, line),
                Sampling(temperature=temperature, max_tokens=self._max_tokens, seed=(*seed, number)),
            )
            for number, (scene, line) in enumerate(asked)
        ]
        batches = [prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH)]
        return [answer.text for batch in batches for answer in self._engine.generate(batch)]

    def _messages(self, scene: Scene, line: str) -> tuple[dict[str, Any], ...]:
        pictures = [{"type": "image", "image": Image.fromarray(frame)} for frame in scene]
        text = {"type": "text", "text": f"The task: {self._task.description}\n\n{line}"}
        return ({"role": "user", "content": [*pictures, text]},)


def _write_line(plan: Plan | None, index: int) -> str:
    assert plan is not None
    return WRITE_LINE.format(index=index + 1, count=len(plan.steps), name=plan.steps[index].name)


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ProgramError:
        return None


def _program(plan: Plan | None, sources: Sequence[str | None]) -> Answer:
    if plan is None or not all(sources[: len(plan.steps)]):
        return None
    parts = zip(plan.steps, sources, strict=False)
    return RewardProgram(
        subtasks=tuple(
            SubTask(name=step.name, description=step.description, code=str(source)) for step, source in parts
        )
    )


def episodes(task: Task, seeds: Sequence[int], max_steps: int | None = None) -> Iterator[Trajectory]:
    """Expert episodes, or random ones if ``max_steps`` is given."""
    with made(task, seeds[0]) as env:
        for seed in seeds:
            yield play(task, env, seed, "random" if max_steps else "expert", max_steps)


def measure(
    engine: VlmEngine,
    task: Task,
    scenes: int,
    experts: int,
    randoms: int,
    temperature: float,
    seed: int,
    tell: Progress,
) -> dict[str, Any]:
    """Figures of one task."""
    judging = {Evidence.EXPERTS: list(episodes(task, seeds_of(seed, Role.EXPERT, experts)))}
    plan = by_default(task, CodeConfig).collect
    cut = math.ceil(plan.random_cut * max(len(episode) for episode in judging[Evidence.EXPERTS]))
    judging[Evidence.RANDOMS] = list(episodes(task, seeds_of(seed, Role.RANDOM, randoms), cut))
    judge = Judge(judging)
    shown = [(each.frames[0], each.frames[-1]) for each in episodes(task, seeds_of(seed, Role.HELD_OUT, 2 * scenes))]
    unseen = [(*shown[2 * number], *shown[2 * number + 1]) for number in range(scenes)]
    asker = Asker(engine, task)
    first = best = 0
    for start in range(0, scenes, BATCH):
        part = unseen[start : start + BATCH]
        tell(task.name, start, scenes)
        accepted = [judge.accepts(answer) for answer in asker.answers(part, temperature=0.0)]
        failed = [scene for scene, good in zip(part, accepted, strict=True) if not good]
        first += sum(accepted)
        best += sum(accepted) + sum(_one_of_eight(asker, judge, scene, temperature, seed) for scene in failed)
    return {
        "scenes": scenes,
        "distinct_scenes": len({b"".join(frame.tobytes() for frame in scene) for scene in unseen}),
        "first_failed": scenes - first,
        "first": interval(first, scenes),
        "best_of_8": interval(best, scenes),
        "distinct_programs": len(judge.seen),
    }


def _one_of_eight(asker: Asker, judge: Judge, scene: Scene, temperature: float, seed: int) -> bool:
    sampled = asker.answers([scene] * 8, temperature, seed_of(seed, Role.SYNTHESIS))
    return any(judge.accepts(answer) for answer in sampled)


def interval(hits: int, count: int) -> dict[str, float]:
    """A share with its Wilson interval."""
    low, high = wilson_interval(hits, count)
    return {"share": round(hits / count, 4), "low": round(low, 4), "high": round(high, 4)}


def into_card(card: Path, found: dict[str, Any]) -> None:
    """Replace the table between the card's two accuracy marks."""
    lines = ["| task | different scenes | first answer verifies | one of eight does |", "|---|---|---|---|"]
    for task, figures in found.items():
        cells = [
            f"{each['share']:.3f} ({each['low']:.3f} to {each['high']:.3f})"
            for each in (figures["first"], figures["best_of_8"])
        ]
        lines.append(f"| {task} | {figures['distinct_scenes']} of {figures['scenes']} | {' | '.join(cells)} |")
    before, _, rest = card.read_text().partition(CARD_START)
    _, _, after = rest.partition(CARD_END)
    card.write_text(f"{before}{CARD_START}\n" + "\n".join(lines) + f"\n{CARD_END}{after}")


def main(
    scenes: Annotated[int, typer.Option(help="Unseen scenes of each task.")] = 200,
    tasks: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(TASKS),
    experts: Annotated[int, typer.Option(help="Expert episodes that programs are verified on.")] = 60,
    randoms: Annotated[int, typer.Option(help="Episodes of random play; verification wants 200.")] = 200,
    temperature: Annotated[float, typer.Option(help="Of the eight samples.")] = 0.7,
    seed: Annotated[int, typer.Option(help="All others are spawned from it.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads of the model.")] = 2,
    model: Annotated[str, typer.Option(help="The embedded model, or a folder.")] = EMBEDDED_MODEL,
    card: Annotated[Path | None, typer.Option(help="Model card whose table of accuracies to replace.")] = None,
) -> None:
    """Measure, print a line for each task, and one JSON line at the end."""
    started = time.monotonic()
    engine = VlmEngine.load(model, threads=threads)
    found: dict[str, Any] = {}
    for name in tasks.split(","):
        with bars() as tell:
            found[name] = measure(engine, get_task(name), scenes, experts, randoms, temperature, seed, tell)
        first, best = found[name]["first"], found[name]["best_of_8"]
        typer.echo(f"{name:14} first {first['share']:.3f}  best of eight {best['share']:.3f}  of {scenes} scenes")
    if card:
        into_card(card, found)
    setting = {"scenes": scenes, "experts": experts, "randoms": randoms, "temperature": temperature, "seed": seed}
    seconds = round(time.monotonic() - started, 1)
    typer.echo(
        json.dumps({"benchmark": "nano_accuracy", "model": model, **setting, "seconds": seconds, "tasks": found})
    )


if __name__ == "__main__":
    typer.run(main)
