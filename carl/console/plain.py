"""Text that is safe to print: answers, messages and files may hold control sequences."""

import re

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?", re.DOTALL
)
"""Control sequences of ECMA-48: CSI, strings up to their terminator, and the other escape sequences."""


def plain(text: str) -> str:
    """``text`` on one line: white space becomes one space, characters without a glyph are removed (see ``visible``)."""
    return " ".join(visible(text).split())


def visible(text: str) -> str:
    """``text`` without control sequences and characters that have no glyph, with its white space.

    The characters removed are Unicode's categories Cc, Cf, Cs, Co and Cn, as ``str.isprintable`` defines them. Carriage
    returns become line ends, since they would overwrite the line.
    """
    text = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(
        letter for letter in text if letter.isprintable() or letter in "\n\t" or (letter.isspace() and letter >= "\xa0")
    )
