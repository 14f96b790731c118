"""The sub-tasks that a VLM named, in any usual form; an answer that can be read in two ways is rejected."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from carl.console.plain import plain
from carl.program import MAX_SUBTASKS
from carl.synthesis import jsonplan
from carl.synthesis.bare import Unusable, bare, excerpt, looks_like, refuses
from carl.synthesis.numbered import Item, Listing, holds, listings

MAX_NAME = 80
"""Longest name of a sub-task, in characters: more is prose."""

_EDGES = "*_`\"'\u201c\u201d \t.:;,"

MAX_DESCRIPTION = 400
"""Characters of a description that are kept."""

_APART = re.compile(r"\s+[-\u2013][*_]*\s+|\s*\u2014\s*|:[*_]*\s+|\s*\uff1a\s*")
"""Between a name and its sentence; what makes the name bold may end after it."""

_SCENE = re.compile(r"^\W*scene\W*?:\W*(.+)$", re.IGNORECASE | re.MULTILINE)
_GOAL = re.compile(r"^[*_ ]*goal[*_ ]*:[*_ ]*(.+)$", re.IGNORECASE | re.MULTILINE)
_KIND = r"(?:sub[- ]?)?(?:task|goal)|step|stage|phase"
_FIELD = re.compile(
    rf"^\W*(?:(?:(?:short )?name|title|{_KIND})\W*:|(?:{_KIND})\s*(?P<number>\d{{1,2}})\W*?[.):\-\u2013\u2014])\s*",
    re.IGNORECASE,
)
_NO_NAME = re.compile(
    rf"\W*(?:(?:a |the )?(?:short )?(?:name|title|description|sentence|sub-?task)|(?:{_KIND})\s*\d+"
    r"|(?:the )?(?:initial|first|goal|last|final)? ?(?:frame|image|picture)s?(?: ?\d+)?)\W*|(?:is|are|was|were)\b.*",
    re.IGNORECASE,
)
"""A placeholder, a label or a frame in the place of a name, or the rest of a sentence that began with a number."""


@dataclass(frozen=True)
class Step:
    """A sub-task that has no program yet."""

    name: str
    description: str = ""


@dataclass(frozen=True)
class Plan:
    """A decomposition: the sub-tasks in order, what the model saw, and by what it tells the goal frame."""

    steps: tuple[Step, ...]
    scene: str = ""
    goal: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for plans that name the same sub-tasks."""
        return tuple(" ".join(step.name.casefold().split()) for step in self.steps)

    def __str__(self) -> str:
        lines = [f"{index}. {_line(step)}" for index, step in enumerate(self.steps, 1)]
        return "\n".join([*lines, *([f"How the goal is told: {self.goal}"] if self.goal else [])])


def _line(step: Step) -> str:
    return f"{step.name} - {step.description}" if step.description else step.name


def parse_plan(answer: str) -> Plan:
    """A numbered list of names, or of names and sentences, or JSON; ``Scene: ...`` may come before.

    Reasoning before the list, remarks around it, sub-points and other decoration are skipped. Of several lists the last
    counts if it is introduced as the final one, or if it alone follows a scene. Raises Unusable, a ProgramError, if
    there is no list, or two that could be meant, or lines of which it is not clear whether they belong to it.
    """
    text = bare(answer)
    rest, found = jsonplan.taken_out(text)
    plans = [_plan(each.items, each.scene) for each in found]
    chosen = _chosen(listings(rest), rest)
    plans += [chosen] if chosen else []
    if not plans or (refuses(rest) and not plans[-1].scene):
        raise Unusable(f"no numbered sub-tasks in the answer, {looks_like(rest)}", excerpt(rest))
    if len({plan.key for plan in plans}) > 1:
        raise Unusable("several lists in the answer could be the sub-tasks", excerpt(str(plans[-1])))
    goal = _GOAL.search(rest)
    return replace(plans[-1], goal=plain(goal[1])[:MAX_DESCRIPTION] if goal else "")


def _chosen(found: Sequence[Listing], text: str) -> Plan | None:
    """The plan among numbered lists; None if there are none but remarks."""
    lists = [each for each in found if not each.remark]
    if not lists:
        return None
    *others, last = lists
    chosen = _plan(last.items, last.scene or _scene(text))
    alone = last.scene is not None and all(each.scene is None for each in others)
    if not last.final and not alone and any(_plan(each.items, None).key != chosen.key for each in others):
        raise Unusable("several lists in the answer could be the sub-tasks", excerpt(str(chosen)))
    return chosen


def _scene(text: str) -> str:
    scene = _SCENE.search(text)
    return scene[1] if scene else ""


def _plan(items: Sequence[Item], scene: str | None) -> Plan:
    if len(items) > MAX_SUBTASKS:
        raise Unusable(f"{len(items)} sub-tasks; at most {MAX_SUBTASKS} are allowed")
    return Plan(tuple(_step(item, number) for number, item in enumerate(items, 1)), plain(scene or ""))


def _step(item: Item, number: int) -> Step:
    """The name before a dash or a colon, and the sentence after it or below; name alone on the next line will do."""
    text, below = item.text, list(item.below)
    if not text.strip("*_ \t") and below:
        text = below.pop(0)
    label = _FIELD.match(text)
    if label and label["number"] not in (None, str(number)):
        raise Unusable("the numbers of the sub-tasks do not count up", excerpt(text))
    text = text[label.end() :] if label else text
    if holds(text, number + 1):
        raise Unusable("several sub-tasks are on one line", excerpt(text))
    name, *rest = _APART.split(plain(text), maxsplit=1)
    name = re.sub(r"^[<\[]([^<>\[\]]*)[>\]]$", r"\1", name.replace("**", "").strip(_EDGES)).strip(_EDGES)
    if not name or len(name) > MAX_NAME or _NO_NAME.fullmatch(name):
        raise Unusable("not the short name of a sub-task", excerpt(text))
    description = rest[0] if rest else " ".join(below)
    return Step(name, plain(description.replace("**", "")).strip("*_ -\t")[:MAX_DESCRIPTION])
