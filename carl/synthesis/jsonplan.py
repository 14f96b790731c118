"""Plans that a VLM wrote as JSON, fenced or not, in any shape that has names in an order."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from carl.synthesis.bare import Unusable, excerpt
from carl.synthesis.numbered import Item

_BEGINS = re.compile(r"(?:^|:)[ \t]*(?=[\[{]\s*[\"\[{])", re.MULTILINE)
_NUMBER = re.compile(r"^\W*(?:(?:sub[- _]?)?(?:task|goal)|step|stage|phase)?[ _]*(\d{1,2})\s*[.):]?\s*", re.IGNORECASE)
_LISTS = ("subtasks", "steps", "plan", "tasks", "decomposition", "goals")
_NAMES = ("name", "title", "subtask", "subtaskname", "task", "goal", "step", "action")
_SENTENCES = ("description", "sentence", "how", "shows", "evidence", "criterion", "condition", "details")
_COUNTERS = ("index", "number", "id", "order", "step", "no", "subtask", "task")


@dataclass(frozen=True)
class Found:
    """The sub-tasks in a JSON answer, and its description of the scene if it has one."""

    items: tuple[Item, ...]
    scene: str | None


def taken_out(text: str) -> tuple[str, list[Found]]:
    """``text`` without the JSON in it, and the names in that; raises Unusable for JSON that is cut or unclear."""
    rest, found, end = "", [], 0
    for begin in _BEGINS.finditer(text):
        if begin.end() < end:
            continue
        try:
            value, stop = json.JSONDecoder().raw_decode(text, begin.end())
        except (ValueError, RecursionError) as error:
            raise Unusable("the answer holds JSON that cannot be read", excerpt(text[begin.end() :])) from error
        rest, end = rest + text[end : begin.start()] + "\n", stop
        found.append(Found(_items(value), _scene(value)))
    return rest + text[end:], found


def _scene(value: Any) -> str | None:
    scene = value.get("scene", value.get("Scene")) if isinstance(value, dict) else None
    return scene if isinstance(scene, str) else None


def _items(value: Any) -> tuple[Item, ...]:
    """The sub-tasks of a JSON value; numbers of their own, if they have any, have to count up from 0 or 1."""
    items, counted = zip(*map(_item, _entries(value)), strict=True)
    count = len(items)
    if counted not in ((None,) * count, tuple(range(count)), tuple(range(1, count + 1))):
        raise Unusable("the numbers of the sub-tasks do not count up", excerpt(json.dumps(value)))
    return items


def _entries(value: Any) -> list[Any]:
    """The sub-tasks in a JSON value, in order."""
    if isinstance(value, list) and value:
        return value
    if isinstance(value, dict) and value:
        numbers = [_NUMBER.fullmatch(key) for key in value]
        if [int(number[1]) for number in numbers if number] == list(range(1, len(value) + 1)):
            return list(value.values())
        inner = {_plain(key): each for key, each in value.items() if isinstance(each, list | dict) and each}
        named = [inner[key] for key in _LISTS if key in inner]
        named = named or [each for each in inner.values() if isinstance(each, dict)]
        if len(named) == 1:
            return _entries(named[0])
        if not inner and _first(value, _NAMES[:4]):
            return [value]
    raise Unusable("it is not clear what the JSON in the answer names", excerpt(json.dumps(value)))


def _item(entry: Any) -> tuple[Item, int | None]:
    """A sub-task, and the number that it has by itself."""
    if isinstance(entry, str):
        number = _NUMBER.match(entry)
        counted = number if number and number.end() < len(entry) and re.search(r"[.):]\s*$", number[0]) else None
        return Item(entry[counted.end() :] if counted else entry), int(counted[1]) if counted else None
    texts = [each for each in entry.values() if isinstance(each, str)] if isinstance(entry, dict) else []
    if isinstance(entry, dict) and (name := _first(entry, _NAMES) or (texts[0] if len(texts) == 1 else "")):
        sentence = _first(entry, _SENTENCES) if len(texts) > 1 else ""
        counters = [each for key, each in entry.items() if _plain(key) in _COUNTERS and type(each) is int]
        return Item(name, [sentence] if sentence else []), counters[0] if counters else None
    raise Unusable("it is not clear what the JSON in the answer names", excerpt(json.dumps(entry)))


def _first(entry: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """The text under the first of ``keys`` that has one."""
    texts = {_plain(key): each for key, each in entry.items() if isinstance(each, str) and not _NUMBER.fullmatch(each)}
    return next((texts[key] for key in keys if texts.get(key, "").strip()), "")


def _plain(key: str) -> str:
    return re.sub(r"[^a-z]", "", key.lower())
