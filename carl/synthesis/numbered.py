"""Numbered lists in a text, whatever the numbers look like; one that can be read in two ways raises Unusable."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from carl.synthesis.bare import Unusable, excerpt

_LEAD = r"[>#*_+\-\u2022 \t]*"
_WORD = r"(?:sub[- ]?)?(?:task|goal)|step|stage|phase"
_MARK = r"[ \t]?[.):\uff0e\u3001\uff1a\uff09]+|\ufe0f?\u20e3|[ \t]+[-\u2013\u2014](?=[ \t])"
_ITEM = re.compile(
    rf"^{_LEAD}(?:"
    rf"(?:{_WORD})[ \t]*#?(?P<counted>\d{{1,2}})(?:[*_ \t]*[.):\uff1a\-\u2013\u2014]+|(?=[*_ \t]*$))"
    rf"|[(\uff08]?(?P<number>\d{{1,2}})[*_]*(?:{_MARK})"
    r")[*_]*(?:[ \t]+|(?!\d))(?P<text>.*)$",
    re.IGNORECASE,
)
"""A number with its mark; a word such as "Step" before it takes more marks, and none where the line ends."""

_COUNTS = re.compile(rf"^{_LEAD}[(\[]?(?:(?:{_WORD})[ \t]*)?(\d{{1,2}})\b", re.IGNORECASE)
_MORE = re.compile(r"^\W*(?:\.{3}|\u2026|etc\.?|and so on\.?)\W*$", re.IGNORECASE)
"""A line in place of sub-tasks that it does not name."""

_FENCE = re.compile(r"^\s*(?:`{3,}|~{3,})\w*\s*$")
_SCENE = re.compile(r"^\W*scene\W*?:\W*(?P<words>.+)$", re.IGNORECASE)

_REMARK = re.compile(
    r"(?:(?:a|few|some|two|three|four|more|other|further|additional|important|general|brief|my|the|please)\s+)*"
    r"(?:notes?|remarks?|comments?|caveats?|assumptions?|observations?|considerations?|explanations?|rationale|reasons?|"
    r"reasoning|justifications?|why|hints?|rules?|constraints?|thoughts?|thinking|analysis|warnings?|questions?|"
    r"limitations?)(?:\s+(?:that|here|on this|to keep in mind))?",
    re.IGNORECASE,
)
_FINAL = re.compile(
    r"(?:(?:or|so|but|and|no|wait|well|here|s|this|is|are|my|the|a|an)\s+)*"
    r"(?:final(?:ly)?|revised|corrected|correction|improved|updated|better|rather|instead|answer)"
    r"(?:\s+(?:answer|plan|list|version|decomposition|sub-?tasks?|steps|result|one|is|are))*",
    re.IGNORECASE,
)
_LONGEST_LABEL = 60


@dataclass
class Item:
    """One numbered line: its text, the lines right below it up to an empty one, and what its number looks like."""

    text: str
    below: list[str] = field(default_factory=list)
    style: str = ""

    def named_by(self, line: str, gap: "_Gap") -> bool:
        """Take the name from the next line with text, where that is bold and the number stands alone."""
        named = not self.text.strip("*_ ") and not self.below and _bold(line) and not any(map(str.strip, gap.lines))
        self.text = line.strip() if named else self.text
        return named


@dataclass
class Listing:
    """Items that count up from 1, and what introduces them.

    Attributes:
        scene: the text of a line "Scene: ..." right before the list.
        remark, final: the list is introduced as remarks, or as what the answer comes to.
    """

    indent: int
    scene: str | None
    remark: bool
    final: bool
    items: list[Item] = field(default_factory=list)
    lazy: bool = False
    _gaps: set[tuple[bool, bool]] = field(default_factory=set)
    _inner: int | None = None

    def takes(self, number: int, indent: int, gap: "_Gap") -> bool:
        """Whether an item goes on this list; False if it begins another one."""
        if indent > self.indent + 1:
            return not gap.apart
        if number == len(self.items) + 1 and not self.lazy:
            return True
        all_ones = self.lazy or len(self.items) == 1
        return number == 1 and all_ones and not gap.apart and indent == self.indent

    def add(self, number: int, indent: int, item: Item, gap: "_Gap") -> None:
        """Add the item ``number`` at an indent, after ``gap``; raises Unusable if it is unlike those before."""
        if indent > self.indent + 1:
            self._add_inner(number, item)
            return
        self._inner = None
        if self.items:
            self.lazy = self.lazy or number == 1
            self._gaps.add((gap.blank, gap.paragraph))
            alike = item.style == self.items[0].style and indent >= self.indent - 1 and len(self._gaps) == 1
            if not alike or gap.introduces or gap.glued:
                raise Unusable("it is not clear which lines belong to the list of sub-tasks", excerpt(item.text))
        self.items.append(item)

    def _add_inner(self, number: int, item: Item) -> None:
        """A sub-point; one that goes on with the list's own numbers may be a sub-task that was moved."""
        if number != 1 and number != (self._inner or 0) + 1:
            raise Unusable("it is not clear which lines are sub-tasks and which are sub-points", excerpt(item.text))
        self._inner = number


@dataclass
class _Gap:
    """What lies between two items."""

    lines: list[str] = field(default_factory=list)

    @property
    def blank(self) -> bool:
        return any(not line.strip() for line in self.lines)

    @property
    def paragraph(self) -> bool:
        """A text that stands by itself."""
        pairs = zip(self.lines, self.lines[1:], strict=False)
        return any(not before.strip() and line[:1].strip(" \t-*+\u2022>") for before, line in pairs)

    @property
    def glued(self) -> bool:
        """Whether the next number stands in a paragraph rather than after it."""
        return self.paragraph and bool(self.lines[-1].strip())

    @property
    def heading(self) -> str:
        """The last line with text that is not the scene."""
        lines = [line for line in self.lines if line.strip() and not _SCENE.match(line)]
        return lines[-1] if lines else ""

    @property
    def introduces(self) -> bool:
        """Whether these lines begin something new."""
        return any(_label(line, _REMARK, _FINAL) for line in self.lines) or (
            self.heading[:1].strip() != "" and _heads(self.heading)
        )

    @property
    def apart(self) -> bool:
        """Whether numbers after these lines are more than sub-points, or than more of a list of ones."""
        return self.introduces or self.blank

    def opens(self, indent: int) -> Listing:
        """The list that begins after these lines."""
        scenes = [found["words"].strip() for line in self.lines if (found := _SCENE.match(line))]
        remark, final = (_label(self.heading, kind) for kind in (_REMARK, _FINAL))
        return Listing(indent, scenes[-1] if scenes else None, remark, final)


def listings(text: str) -> list[Listing]:
    """All lists in ``text``, in order; raises Unusable where numbers do not count up."""
    found: list[Listing] = []
    stray = ""
    gap = _Gap()
    for line in _lines(text):
        item = _ITEM.match(line)
        if item is None:
            _look_for_a_number(line, found)
            if found and found[-1].items[-1].named_by(line, gap):
                continue
            gap.lines.append(line)
            if found and line.strip() and not gap.blank:
                found[-1].items[-1].below.append(line)
            continue
        number, indent = int(item["counted"] or item["number"]), len(line) - len(line.lstrip(" >"))
        if not found or not found[-1].takes(number, indent, gap):
            if number == 1:
                found.append(gap.opens(indent))
                stray = "" if found[-1].scene else stray
            elif not found and number:
                stray = line
                gap.lines.append(line)
                continue
            else:
                raise Unusable("the numbers of the sub-tasks do not count up", excerpt(line))
        style = re.sub(r"[\d\s]", "", line[: item.start("text")]).lower()
        found[-1].add(number, indent, Item(item["text"].strip(), style=style), gap)
        gap = _Gap()
    if stray:
        raise Unusable("the numbers of the sub-tasks do not count up", excerpt(stray))
    return found


def _lines(text: str) -> Iterator[str]:
    return (line.expandtabs(4) for line in text.splitlines() if not _FENCE.match(line))


def holds(line: str, number: int) -> bool:
    """Whether an item of that number begins within a line."""
    return re.search(rf"(?:^|[\s;,(>]|\\n){number}[.):]\s+\S", line) is not None


def _look_for_a_number(line: str, found: list[Listing]) -> None:
    """Raise Unusable for a line that has the next number and is not an item: it may be a sub-task all the same."""
    if not found or found[-1].remark:
        return
    number, counts = len(found[-1].items) + 1, _COUNTS.match(line)
    if (counts and int(counts[1]) == number) or holds(line, number) or _MORE.match(line):
        raise Unusable("a line may be a sub-task or not", excerpt(line))


def _heads(line: str) -> bool:
    """Whether a line looks like a heading, or ends in a colon."""
    words = line.strip()
    return _bold(line) or words.startswith("#") or words.rstrip("*_ ").endswith(":")


def _bold(line: str) -> bool:
    words = line.strip()
    return words[:2] == words[-2:] and words[:2] in ("**", "__")


def _label(line: str, *kinds: re.Pattern[str]) -> bool:
    """Whether a heading is of one of these kinds."""
    words = re.sub(r"[^\w\s-]+", " ", line).strip("_ ")
    return _heads(line) and len(words) <= _LONGEST_LABEL and any(kind.fullmatch(words) for kind in kinds)
