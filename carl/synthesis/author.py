"""Author: puts the questions of a synthesis to the VLM and ranks the answers by votes."""

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import TypeVar

from carl.config import SynthesisConfig
from carl.console.progress import Progress
from carl.program import MAX_SUBTASKS
from carl.sandbox.names import BUILTINS
from carl.seeding import Role, seed_of
from carl.synthesis.colours import colour_table
from carl.synthesis.failures import NONE, Findings
from carl.synthesis.parse import MAX_HOLD, UNFIT, Plan, Unusable, parse_code, parse_codes, parse_plan
from carl.synthesis.shown import WHERE_FAILED, Examples, Picture
from carl.synthesis.tried import Rejection, Tried
from carl.vlm import prompts
from carl.vlm.client import VlmClient
from carl.vlm.exchange import CUT_OFF, STOPPED, WITHHELD, Exchange, Question, Usage
from carl.vlm.prompts import PromptFile

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

PICTURES = """\
- "initial frame" and "goal frame": the first and the last frame of an expert episode.
- Other frames of expert episodes lie between these two. The one before the goal frame is not the goal yet.
- "near miss": an episode that did not solve the task, though its last frame may look much like success. No program may
  call the task solved there."""
"""What the captions mean."""

FAILED = """
- "where it failed": a frame at which an earlier answer was wrong, with what was expected of it and what it gave."""

SIZE = "Frames are {height} pixels high and {width} wide, and so do your functions get them. "
ENLARGED = """\
The pictures above are enlarged {factor} times: each pixel is a square of {factor} x {factor}. All places and sizes in
this text are in the pixels of the small frames."""
AS_THEY_ARE = "The pictures above are shown in that size."

T = TypeVar("T")


class Author:
    """Asks for plans and for code; every request has its own seed. Answers of no use are rejections in ``tried``.

    Attributes:
        requests: how many were made. They raise BudgetSpentError where the search's budget does not cover another one.
    """

    def __init__(
        self,
        description: str,
        examples: Examples,
        client: VlmClient,
        config: SynthesisConfig,
        seed: int,
        progress: Progress,
        tried: Tried,
        files: Mapping[str, PromptFile] | None = None,
    ) -> None:
        """``files`` are the prompts ``decompose`` and ``write``; None: those of this package."""
        self._examples, self._client, self._config, self._seed = examples, client, config, seed
        self._progress, self._tried = progress, tried
        self._files = files or {name: prompts.load(name) for name in prompts.NAMES}
        self._description = description
        self.requests = 0

    def plans(self, rejected: str = "", findings: Findings = NONE) -> list[Plan]:
        """Distinct plans, most votes first; may be empty. ``rejected`` is the plan that ``findings`` speak against."""
        prompt = self._files["decompose"]
        repair = prompt.fill("repair", plan=rejected or NOTHING, evidence=findings.text) if findings else ""
        values = {"repair": repair, "max_subtasks": MAX_SUBTASKS}
        return ranked(self._ask(prompt, parse_plan, values, findings), lambda plan: plan.key)

    def codes(self, plan: Plan, index: int, earlier: Sequence[str] = (), complaints: str = "") -> list[str]:
        """Distinct codes for step ``index`` (from 0) of ``plan``, most votes first; may be empty.

        ``earlier`` are the codes of the steps before it, ``complaints`` why an answer before could not be used.
        """
        prompt = self._files["write"]
        values = {
            "earlier": prompt.fill("earlier", sources=_numbered(earlier)) if earlier else "",
            "answer": prompt.fill("answer"),
            "repair": prompt.fill("complaints", evidence=complaints) if complaints else "",
        }
        return ranked(self._write(plan, index, parse_code, values, NONE), lambda code: code)

    def mended(self, plan: Plan, index: int, codes: Sequence[str], findings: Findings) -> list[dict[int, str]]:
        """Distinct answers to what was found against ``codes``, most votes first: code by step, of those that change.

        Step ``index`` is the first to blame; others may fail for the same reason. May be empty.
        """
        prompt = self._files["write"]
        values = {
            "earlier": "",
            "answer": prompt.fill("answers", index=index + 1),
            "repair": prompt.fill("repair", sources=_numbered(codes), evidence=findings.text),
        }
        parse = partial(parse_codes, index=index, count=len(plan.steps))
        return ranked(self._write(plan, index, parse, values, findings), lambda found: tuple(found.items()))

    def _write(
        self, plan: Plan, index: int, parse: Callable[[str], T], values: Mapping[str, object], findings: Findings
    ) -> list[T]:
        before = plan.steps[index - 1].name if index else ""
        values = {
            "plan": plan,
            "index": index + 1,
            "count": len(plan.steps),
            "name": plan.steps[index].name,
            "previous": LATER.format(index=index, name=before) if index else FIRST,
            "vision": prompts.vision_reference(),
            "max_hold": MAX_HOLD,
            "builtins": ", ".join(sorted(BUILTINS)),
            **values,
        }
        return self._ask(self._files["write"], parse, values, findings)

    def complaints(self) -> str:
        """Why answers to the latest request could not be used, each reason once."""
        return "\n".join(dict.fromkeys(each.reason for each in self._latest()))

    def unfit(self) -> str:
        """What answers to the latest request say that no frame shows; empty where none says so."""
        return "\n".join(dict.fromkeys(each.reason for each in self._latest() if each.kind == UNFIT))

    def _latest(self) -> list[Rejection]:
        return [each for each in self._tried.rejections if each.request == self._tried.spent.calls]

    def _ask(
        self, prompt: PromptFile, parse: Callable[[str], T], values: Mapping[str, object], findings: Findings
    ) -> list[T]:
        budget, made = self._tried.budget.calls, self._tried.spent.calls
        self._tried.spend()
        pictures = self._examples.pictures(self._config.pictures, findings.cases)
        values = {
            "description": self._description,
            **_look_of(pictures, len(self._examples.pairs), self._client),
            **values,
        }
        frames, captions = (
            tuple(column) for column in zip(*((each.frame, each.caption) for each in pictures), strict=True)
        )
        system, user = (_filled(prompt, section, values) for section in ("system", "user"))
        question = Question(prompt.id, system, user, frames, captions)
        self._progress("asking the VLM", made, budget)
        seed = seed_of(self._seed, Role.SYNTHESIS, self.requests)
        exchange = self._client.exchange(question, self._config.samples, seed)
        self.requests += 1
        self._tried.answers += exchange.usage.samples
        self._pay(exchange.usage)
        self._progress("asking the VLM", made + 1, budget)
        return self._parsed(exchange, parse)

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


def _look_of(pictures: Sequence[Picture], pairs: int, client: VlmClient) -> dict[str, object]:
    """What prompts say of the pictures, whatever is asked."""
    frames = [each.frame for each in pictures]
    failed = any(each.caption.startswith(WHERE_FAILED) for each in pictures)
    height, width = frames[0].shape[:2]
    factor = client.scale(frames[0])
    size = SIZE.format(height=height, width=width)
    return {
        "images": len(pictures),
        "pairs": pairs,
        "height": height,
        "width": width,
        "pictures": PICTURES + (FAILED if failed else ""),
        "size": size + (ENLARGED.format(factor=factor) if factor > 1 else AS_THEY_ARE),
        "colours": colour_table(frames),
    }


def _filled(prompt: PromptFile, section: str, values: Mapping[str, object]) -> str:
    return re.sub(r"\n{3,}", "\n\n", prompt.fill(section, **values))


def _numbered(codes: Sequence[str]) -> str:
    """Codes, each in a fence under the number of its sub-task."""
    return "\n\n".join(
        f"```python\n# sub-task {number}\n{code}```" if code else f"sub-task {number}: {NOTHING}"
        for number, code in enumerate(codes, 1)
    )
