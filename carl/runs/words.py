"""The figures that the report, the screens and a sweep's tables share."""

import math
from collections.abc import Mapping
from typing import Any

from carl.errors import command
from carl.program import RewardProgram
from carl.provenance import EDITED


def number(value: Any) -> float | None:
    """``value`` as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def with_interval(value: float, low: float, high: float) -> str:
    """``0.930 [0.871, 0.989]``."""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def missed(usage: Mapping[str, Any]) -> float | None:
    """How many answers of the VLM were wanted, if fewer came; else None."""
    came, wanted = number(usage.get("samples")), number(usage.get("wanted"))
    return wanted if came is not None and wanted is not None and wanted > came else None


def asking(model: str, usage: Mapping[str, Any]) -> str:
    """What asking ``model`` cost, as a line for a terminal."""
    wanted = missed(usage)
    came = f"{usage['samples']} samples" if wanted is None else f"{usage['samples']} of {wanted:.0f} samples"
    return (
        f"{model}: {usage['calls']} requests, {came} "
        f"({usage['prompt_tokens']:,} tokens in, {usage['completion_tokens']:,} out, {usage['seconds']:.1f} s)"
    )


def by(origin: str) -> str:
    """Who made a program, ``origin`` in its provenance, in words: a person's editing is nobody's name."""
    return origin if origin.startswith(EDITED) else f"by {origin}"


def whence(program: str, provenance: Mapping[str, Any]) -> str:
    """Who made a program, of the id ``program``, and who approved it as it is, in a sentence; empty if unknown."""
    made = [by(str(provenance["origin"]))] if provenance.get("origin") else []
    made += [f"parent {provenance['parent']}"] if provenance.get("parent") else []
    made += [f"in place of {provenance['replaced']}"] if provenance.get("replaced") else []
    verdict = (provenance.get("verdict") or {}).get("digest")
    given = (one for one in provenance.get("approvals") or () if one.get("program") == program)
    approvals = [one for one in given if not verdict or one.get("verdict") in (None, verdict)]
    made += [f"approved by {one.get('by')}" for one in approvals[-1:]]
    return f"The program {program} is {', '.join(made)}." if made else ""


def named(program: RewardProgram, run: str) -> str:
    """Which program a ``run`` has, who made it, and how to read it."""
    known = program.provenance.model_dump(include={"origin", "parent"}) if program.provenance else {}
    found = whence(program.id, known) or f"The program is {program.id}."
    return f"{found} {command('program show', run)} prints it."


def cached(hits: float, misses: float) -> float | None:
    """The share of frames that the cache answered for; None if there were none."""
    return hits / (hits + misses) if hits + misses else None
