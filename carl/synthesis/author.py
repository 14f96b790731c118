"""Author: puts the questions of a synthesis to the VLM and ranks the answers by votes."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

from carl.config import SynthesisConfig
from carl.console.progress import Progress
from carl.program import MAX_SUBTASKS
from carl.seeding import Role, seed_of
from carl.synthesis.parse import Plan, Unusable, parse_plan, parse_source
from carl.task import Frame
from carl.vlm import prompts
from carl.vlm.client import VlmClient
from carl.vlm.exchange import CUT_OFF, STOPPED, WITHHELD, Exchange, Question

NAME_LINE = "Task: name the sub-tasks."
WRITE_LINE = "Task: write the program for sub-task {index} of {count}: {name}."
"""Last lines of the two requests. They stand for themselves: a small model may be shown nothing else of the text."""

FIRST = "It is looked at from the episode's first frame on."
LATER = "It is looked at only once sub-task {index}, {name}, is done."

ENDED = {
    CUT_OFF: "the answer was cut off after vlm.max_tokens={max_tokens} tokens; raise vlm.max_tokens, or write less",
    WITHHELD: "the server's content filter withheld the answer",
}
"""Why an answer is of no use that ended so, whatever its text."""

NOTHING = "(nothing that could be used)"

T = TypeVar("T")


class BudgetSpentError(Exception):
    """All requests that a synthesis may make are made."""


@dataclass(frozen=True)
class Rejection:
    """An answer that is neither a plan nor a program.

    Attributes:
        request: counts from 1.
        sample: counts from 0.
        reason: why, with what is this answer's own; ``kind`` without, so that equal kinds can be counted.
    """

    request: int
    sample: int
    prompt: str
    reason: str
    kind: str


class Author:
    """Asks for plans and programs; every request has its own seed, and at most ``config.max_requests`` are made.

    Attributes:
        requests: how many were made.
        rejections: every answer that could not be used, and why.
    """

    def __init__(
        self,
        description: str,
        pairs: Sequence[tuple[Frame, Frame]],
        client: VlmClient,
        config: SynthesisConfig,
        seed: int,
        progress: Progress,
    ) -> None:
        self._client, self._config, self._seed, self._progress = client, config, seed, progress
        shown = pairs[: config.pairs]
        self._frames = tuple(frame for pair in shown for frame in pair)
        height, width = self._frames[0].shape[:2]
        self._words = {
            "description": description, "pairs": len(shown), "images": len(self._frames),
            "height": height, "width": width,
        }  # fmt: skip
        self.requests = 0
        self.rejections: list[Rejection] = []

    def plans(self, rejected: str = "", evidence: str = "") -> list[Plan]:
        """Distinct plans, most votes first; may be empty. ``rejected`` is the plan that failed on ``evidence``."""
        prompt = prompts.load("decompose")
        repair = prompt.fill("repair", plan=rejected or NOTHING, evidence=evidence) if evidence else ""
        return self._ask(prompt, parse_plan, lambda plan: plan.key, {"repair": repair, "max_subtasks": MAX_SUBTASKS})

    def sources(self, plan: Plan, index: int, rejected: str = "", evidence: str = "") -> list[str]:
        """Distinct programs for step ``index`` (from 0) of ``plan``, most votes first; may be empty.

        ``rejected`` is the source that failed on ``evidence``.
        """
        prompt = prompts.load("write")
        before = plan.steps[index - 1].name if index else ""
        values = {
            "plan": plan,
            "index": index + 1,
            "count": len(plan.steps),
            "name": plan.steps[index].name,
            "previous": LATER.format(index=index, name=before) if index else FIRST,
            "vision": prompts.vision_reference(),
            "repair": prompt.fill("repair", source=_fenced(rejected), evidence=evidence) if evidence else "",
        }
        return self._ask(prompt, parse_source, lambda source: source, values)

    def complaints(self) -> str:
        """Why answers to the latest request could not be used, each reason once."""
        return "\n".join(dict.fromkeys(each.reason for each in self.rejections if each.request == self.requests))

    def _ask(
        self,
        prompt: prompts.PromptFile,
        parse: Callable[[str], T],
        key: Callable[[T], Hashable],
        values: dict[str, object],
    ) -> list[T]:
        if self.requests >= self._config.max_requests:
            raise BudgetSpentError
        values = {**self._words, **values}
        question = Question(prompt.id, _filled(prompt, "system", values), _filled(prompt, "user", values), self._frames)
        self._progress("asking the VLM", self.requests, self._config.max_requests)
        seed = seed_of(self._seed, Role.SYNTHESIS, self.requests)
        exchange = self._client.exchange(question, self._config.samples, seed)
        self.requests += 1
        self._progress("asking the VLM", self.requests, self._config.max_requests)
        return ranked(self._parsed(exchange, parse), key)

    def _parsed(self, exchange: Exchange, parse: Callable[[str], T]) -> list[T]:
        parsed = []
        for sample, (answer, end) in enumerate(zip_longest(exchange.answers, exchange.ends, fillvalue=STOPPED)):
            try:
                if end in ENDED:
                    raise Unusable(ENDED[end].format(max_tokens=exchange.draw.max_tokens))
                parsed.append(parse(answer))
            except Unusable as error:
                self.rejections.append(Rejection(self.requests, sample, exchange.prompt, str(error), error.kind))
        return parsed


def ranked(items: Iterable[T], key: Callable[[T], Hashable]) -> list[T]:
    """One item per key, keys with the most items first, ties as first seen."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return [group[0] for group in sorted(groups.values(), key=len, reverse=True)]


def _filled(prompt: prompts.PromptFile, section: str, values: dict[str, object]) -> str:
    return re.sub(r"\n{3,}", "\n\n", prompt.fill(section, **values))


def _fenced(source: str) -> str:
    return f"```python\n{source}```" if source else NOTHING
