"""Author: puts the questions of a synthesis to the VLM and ranks the answers by votes."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import zip_longest
from typing import TypeVar

from carl.config import SynthesisConfig
from carl.console.progress import Progress
from carl.program import MAX_SUBTASKS
from carl.seeding import Role, seed_of
from carl.synthesis.parse import Plan, Unusable, parse_code, parse_plan
from carl.synthesis.tried import Rejection, Tried
from carl.task import Frame
from carl.vlm import prompts
from carl.vlm.client import VlmClient
from carl.vlm.exchange import CUT_OFF, STOPPED, WITHHELD, Exchange, Question, Usage

NAME_LINE = "Task: name the sub-tasks."
WRITE_LINE = "Task: write the program for sub-task {index} of {count}: {name}."
"""Last lines of the two requests. Each is complete by itself: a small model may be shown nothing else of the text."""

FIRST = "It is looked at from the episode's first frame on."
LATER = "It is looked at only once sub-task {index}, {name}, is done."

ENDED = {
    CUT_OFF: "the answer was cut off after vlm.max_tokens={max_tokens} tokens; raise vlm.max_tokens, or write less",
    WITHHELD: "the server's content filter withheld the answer",
}
"""Why an answer is of no use that ended so, whatever its text."""

NOTHING = "(nothing that could be used)"

T = TypeVar("T")


class Author:
    """Asks for plans and for code; every request has its own seed. Answers of no use are rejections in ``tried``.

    Attributes:
        requests: how many were made. They raise BudgetSpentError where the search's budget does not cover another one.
    """

    def __init__(
        self,
        description: str,
        pairs: Sequence[tuple[Frame, Frame]],
        client: VlmClient,
        config: SynthesisConfig,
        seed: int,
        progress: Progress,
        tried: Tried,
    ) -> None:
        self._client, self._config, self._seed = client, config, seed
        self._progress, self._tried = progress, tried
        shown = pairs[: config.pairs]
        self._frames = tuple(frame for pair in shown for frame in pair)
        height, width = self._frames[0].shape[:2]
        self._words = {
            "description": description, "pairs": len(shown), "images": len(self._frames),
            "height": height, "width": width,
        }  # fmt: skip
        self.requests = 0

    def plans(self, rejected: str = "", evidence: str = "") -> list[Plan]:
        """Distinct plans, most votes first; may be empty. ``rejected`` is the plan that failed on ``evidence``."""
        prompt = prompts.load("decompose")
        repair = prompt.fill("repair", plan=rejected or NOTHING, evidence=evidence) if evidence else ""
        return self._ask(prompt, parse_plan, lambda plan: plan.key, {"repair": repair, "max_subtasks": MAX_SUBTASKS})

    def codes(self, plan: Plan, index: int, rejected: str = "", evidence: str = "") -> list[str]:
        """Distinct codes for step ``index`` (from 0) of ``plan``, most votes first; may be empty.

        ``rejected`` is the code that failed on ``evidence``.
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
        return self._ask(prompt, parse_code, lambda code: code, values)

    def complaints(self) -> str:
        """Why answers to the latest request could not be used, each reason once."""
        latest = (each.reason for each in self._tried.rejections if each.request == self._tried.spent.calls)
        return "\n".join(dict.fromkeys(latest))

    def _ask(
        self,
        prompt: prompts.PromptFile,
        parse: Callable[[str], T],
        key: Callable[[T], Hashable],
        values: dict[str, object],
    ) -> list[T]:
        budget, made = self._tried.budget.calls, self._tried.spent.calls
        self._tried.spend()
        values = {**self._words, **values}
        question = Question(prompt.id, _filled(prompt, "system", values), _filled(prompt, "user", values), self._frames)
        self._progress("asking the VLM", made, budget)
        seed = seed_of(self._seed, Role.SYNTHESIS, self.requests)
        exchange = self._client.exchange(question, self._config.samples, seed)
        self.requests += 1
        self._tried.answers += exchange.usage.samples
        self._pay(exchange.usage)
        self._progress("asking the VLM", made + 1, budget)
        return ranked(self._parsed(exchange, parse), key)

    def _pay(self, usage: Usage) -> None:
        price = self._config.price_in * usage.prompt_tokens + self._config.price_out * usage.completion_tokens
        self._tried.pay(usage.prompt_tokens + usage.completion_tokens, price / 1e6)

    def _parsed(self, exchange: Exchange, parse: Callable[[str], T]) -> list[T]:
        parsed = []
        for sample, (answer, end) in enumerate(zip_longest(exchange.answers, exchange.ends, fillvalue=STOPPED)):
            try:
                if end in ENDED:
                    raise Unusable(ENDED[end].format(max_tokens=exchange.draw.max_tokens))
                parsed.append(parse(answer))
            except Unusable as error:
                request = self._tried.spent.calls
                rejection = Rejection(request, sample, exchange.prompt, str(error), error.kind)
                self._tried.rejections.append(rejection)
        return parsed


def ranked(items: Iterable[T], key: Callable[[T], Hashable]) -> list[T]:
    """One item per key, keys with the most items first, ties as first seen."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return [group[0] for group in sorted(groups.values(), key=len, reverse=True)]


def _filled(prompt: prompts.PromptFile, section: str, values: dict[str, object]) -> str:
    return re.sub(r"\n{3,}", "\n\n", prompt.fill(section, **values))


def _fenced(code: str) -> str:
    return f"```python\n{code}```" if code else NOTHING
