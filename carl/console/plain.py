"""Text that a terminal only shows: what models, servers and files say may hold characters that steer it."""

import re

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?", re.DOTALL
)
"""Control sequences of ECMA-48: CSI, strings up to their terminator, and what else an escape character begins."""


def plain(text: str) -> str:
    """``text`` on one line: white space becomes one space, what has no glyph goes (controls, marks of direction)."""
    return " ".join(visible(text).split())


def visible(text: str) -> str:
    """``text`` without control sequences and characters that have no glyph, with its white space.

    These are Unicode's categories Cc, Cf, Cs, Co and Cn, as ``str.isprintable`` has them. Carriage returns become line
    ends, since they would write over the line.
    """
    text = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(
        letter for letter in text if letter.isprintable() or letter in "\n\t" or (letter.isspace() and letter >= "\xa0")
    )
