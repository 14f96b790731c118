"""An answer without what models and servers wrap around it, and the error for one that is of no use."""

import re

from carl.errors import ProgramError

_TOKEN = r"reasoning|reason|think(?:ing)?|thoughts?|reflection|scratchpad|analysis|seed:think"
_OPENED = re.compile(
    rf"<(?:{_TOKEN})>|\[think\]|\u25c1think\u25b7|<\|begin_of_thought\|>|<unused94>(?:thought\b)?", re.IGNORECASE
)
_CLOSED = re.compile(rf"</(?:{_TOKEN})>|\[/think\]|\u25c1/think\u25b7|<\|end_of_thought\|>|<unused95>", re.IGNORECASE)
_OPEN, _CLOSE = "<think>", "</think>"
"""What the tags above become: some models have their own."""

_CHANNEL = re.compile(r"\A.*<\|channel\|>final<\|message\|>", re.DOTALL)
"""Before the answer of a model that speaks in channels."""

_ENDS = re.compile(
    r"</?s>|<eos>|<pad>|<end_of_turn>|<end_of_utterance>|\[/?INST\]|<\uff5c[\w\u2581]+\uff5c>"
    r"|<\|(?:im_end|im_start|end|start|python_tag|return|endoftext|end_of_text|eot_id|eom_id|begin_of_text|begin_of_box|end_of_box"
    r"|begin_of_solution|end_of_solution)\|>"
    r"|</?(?:answer|response|output|result|solution|plan|final)>",
    re.IGNORECASE,
)
"""Tokens that end a turn, and tags around an answer. Others may belong to a name and stay."""

_REFUSAL = re.compile(
    r"\bsorry\b|\bi(?:['\u2019]m| am) (?:un|not )able\b|\bas an ai\b"
    r"|\bi (?:can(?:not|['\u2019]t)|won['\u2019]t|will not|must decline|decline)\b"
    r"|\bunable to (?:help|assist|comply|see|view|process)\b",
    re.IGNORECASE,
)
_BLIND = re.compile(
    r"(?:\bcan(?:not|['\u2019]?t)|\b(?:not|un) ?able to|\bwon['\u2019]t|\bwill not|\bdecline to)\s+(?:\w+ly\s+)?"
    r"(?:(?:see|view|access|open|process|analy[sz]e|look at|interpret|perceive)\s+"
    r"(?:(?:the|any|these|those|your|actual|attached|provided)\s+)*(?:image|picture|frame|photo)s?\b"
    r"|(?:help|assist|comply)\b)",
    re.IGNORECASE,
)
"""Answers of a model that sees no pictures, or refuses; a list after one is advice to the reader."""

_EXCERPT = 120
_OPENING = 300
"""Characters in which a refusal shows."""


class Unusable(ProgramError):
    """An answer is neither a plan nor a program.

    Attributes:
        kind: the reason without what is this answer's own, so that equal reasons can be counted.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


def bare(answer: str) -> str:
    """``answer`` without reasoning blocks, end tokens and tags; raises Unusable if nothing is left.

    A reasoning block that was never closed is read as a remark: what follows its tag may be the answer.
    """
    text = _CLOSED.sub(_CLOSE, _OPENED.sub(_OPEN, _CHANNEL.sub("", answer)))
    before, close, rest = text.rpartition(_CLOSE)
    before = re.sub(f"{_OPEN}.*?{_CLOSE}", "\n", before + close, flags=re.DOTALL)
    # A chat template may have opened the block in the prompt: everything before the tag is reasoning.
    text = (before.rpartition(_CLOSE)[2] + rest).replace(_OPEN, "\n")
    reasoned = text != answer
    text = _ENDS.sub("\n", text).replace("\ufeff", "")
    if reasoned and not text.strip():
        raise Unusable("the answer holds nothing but reasoning")
    return text


def excerpt(text: str) -> str:
    """The beginning of ``text``, quoted and on one line."""
    text = " ".join(text.split())
    return repr(text if len(text) <= _EXCERPT else text[: _EXCERPT - 3] + "...")


def refuses(text: str) -> bool:
    """Whether an answer begins with a refusal, whatever it advises then."""
    return bool(_BLIND.search(text[:_OPENING]))


def looks_like(text: str) -> str:
    """What an answer is that holds nothing of use."""
    if not text.strip():
        return "which is empty"
    return "which is a refusal" if _REFUSAL.search(text[:_OPENING]) else "which is prose"
