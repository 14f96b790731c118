"""Which fields of a request a server accepts: a refused field is left out, renamed or moved."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

_NAMED = {
    "n": r"(?<![\w\\])n(?!\w)|\bchoices?\b|\bcandidates?\b|candidate_?count|num_return_sequences|\bbest_of\b"
    r"|\b(?:multiple|several|one|1|single) (?:chat )?(?:completion|generation|output|response|sample|sequence)s?\b",
    "seed": r"\bseeds?\b|random_seed|determinis|reproducib|\u79cd\u5b50",
    "temperature": r"temperatur|\bsampling\b|do_sample|\u6e29\u5ea6",
    "max_tokens": r"max(?:imum)?_?(?:completion|new|output)?_?tokens|max_?output_?tokens|num_predict"
    r"|\b(?:output|completion|new|generated) tokens|\bin the completion\b",
    "system": r"\bsystem|\bsistema\b|\u7cfb\u7edf|\bdeveloper (?:instruction|message|role)|\broles?\b|\balternat",
}
"""By field, the words that name or imply it in an error, without accents. Most languages keep the names of fields."""

_PATTERNS = {name: re.compile(words, re.IGNORECASE) for name, words in _NAMED.items()}
_PLACES = ("param", "parameter", "loc", "location", "field", "path", "property", "pointer")
_ECHOES = ("input", "ctx", "url", "body", "request", "type", "object", "status")
"""Keys of an error that repeat the request, or give the error's kind."""

RENAMED = "max_tokens, renamed"

LEFT_OUT = {
    "n": "several answers to a request (n), so each is asked for by itself",
    "seed": "a seed, so its answers differ from run to run",
    "temperature": "a temperature, so its own holds",
    "max_tokens": "vlm.max_tokens, so its own limit holds",
    "system": "a system message, so the user's begins with it",
}
"""By field, the warning's text if a server does not accept it."""


def refused(body: Any, lacks: frozenset[str]) -> str | None:
    """The optional field that an error names, among those that are still sent; None if it names none.

    The error's ``param`` and the like count before its message, and earlier words before later ones. A server without
    ``max_tokens`` may have ``max_completion_tokens``, so the first refusal of it is ``RENAMED``.
    """
    for texts in (_places(body), _texts(body)):
        words_of = _unaccented("\n".join(texts))
        hits = [(hit.start(), name) for name, words in _PATTERNS.items() if (hit := words.search(words_of))]
        for _, name in sorted(hits):
            if name not in lacks:
                return RENAMED if name == "max_tokens" and RENAMED not in lacks else name
    return None


def _unaccented(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def fitted(body: dict[str, Any], lacks: frozenset[str]) -> dict[str, Any]:
    """The request ``body`` without the fields in ``lacks``."""
    body = {name: value for name, value in body.items() if name not in lacks}
    if RENAMED in lacks and "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    if "system" in lacks:
        body["messages"] = _merged(body["messages"])
    return body


def _merged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One user message that begins with the system's text."""
    system, user = messages
    *pictures, text = user["content"]
    together = {"type": "text", "text": "\n\n".join(filter(None, (system["content"], text["text"])))}
    return [{"role": "user", "content": [*pictures, together]}]


def _places(body: Any, inside: bool = False) -> Iterator[str]:
    """The field that an error points to: the values of ``param``, ``loc`` and the like."""
    if isinstance(body, dict):
        for key, value in body.items():
            if key not in _ECHOES:
                yield from _places(value, inside or key in _PLACES)
    elif isinstance(body, list):
        if inside:
            yield " ".join(map(str, body))
        else:
            for value in body:
                yield from _places(value)
    elif inside and body is not None:
        yield str(body)


def _texts(body: Any) -> Iterator[str]:
    """All texts of an error, without its copy of the request."""
    if isinstance(body, dict):
        for key, value in body.items():
            if key not in _ECHOES:
                yield from _texts(value)
    elif isinstance(body, list):
        for value in body:
            yield from _texts(value)
    elif isinstance(body, str):
        yield body
