"""The figures of the gate's checks in words: what was counted, and of how many."""

from collections.abc import Callable, Mapping

from carl.runs.reader import Record
from carl.runs.report import words
from carl.runs.words import number
from carl.statistics import exact_bound


def in_words(name: str, figures: Record, message: str = "") -> str:
    """The figures of a check as a sentence; where there is none for it, or it lacks some, its ``message``, or else the
    figures by their names."""
    try:
        return _SENTENCES[name](figures)
    except (KeyError, TypeError, ValueError, OverflowError):  # a report of another version, or an altered one
        named = (f"{str(key).replace('_', ' ')} {words.figure(value)}" for key, value in figures.items())
        return message or ", ".join(named)


def bounds(name: str, figures: Record) -> list[float]:
    """What each share of episodes that a check judges is at most, at 95 %; none where it judges no such share."""
    several = figures.get("bounds")
    found = [figures.get("bound", figures.get("paid_at_all")), *(several if isinstance(several, list) else ())]
    done, of = number(figures.get("completed")), number(figures.get("episodes"))
    if name == "experts_complete" and "bound" not in figures and done is not None and of and done <= of:
        found.append(exact_bound(int(of - done), int(of)))  # a report of an older carl
    return [bound for bound in map(number, found) if bound is not None]


def bounded(name: str, figures: Record) -> str:
    """Those bounds in percent, from the least to the largest; empty if there are none."""
    found = sorted(bounds(name, figures))
    ends = dict.fromkeys(words.percent(bound) for bound in (*found[:1], *found[-1:]))
    return " to ".join(ends)


def with_bound(name: str, figures: Record, message: str = "") -> str:
    """As ``in_words``, with the bounds."""
    said, most = in_words(name, figures, message), bounded(name, figures)
    return f"{said}{', ' if said else ''}bound {most}" if most and f"bound {most}" not in said else said


def _whole(figures: Record, key: str) -> int:
    return int(float(figures[key]))


def _of(figures: Record, part: str, whole: str, what: str) -> str:
    return f"{_whole(figures, part)} of {_whole(figures, whole)} {what}"


def _violations(figures: Record) -> str:
    count = _whole(figures, "violations")
    return f"{count} violation{'' if count == 1 else 's'} of the policy"


def _experts_complete(figures: Record) -> str:
    text = _of(figures, "completed", "episodes", "expert episodes complete every sub-task")
    return text + (f"; in {_whole(figures, 'stuck')} this one never gets done" if "stuck" in figures else "")


def _random_completion(figures: Record) -> str:
    episodes, share = _whole(figures, "episodes"), float(figures["share"])
    low, high = (words.percent(float(end)) for end in figures["interval"])
    early = " before the task is solved, or without," if "completed" in figures else ""
    text = f"every sub-task is done{early} in {round(share * episodes)} of {episodes} random episodes"
    parts = [f"{text} ({words.percent(share)}, 95\u00a0% interval {low} to {high}{_limit(figures)})"]
    for index, count in enumerate(figures.get("done_per_subtask", ()), 1):
        parts.append(f"sub-task {index} done in {round(float(count))} of {episodes} random episodes")
    if "solved" in figures:
        parts.append(f"{_whole(figures, 'solved')} of {episodes} random episodes solve the task")
    return "; ".join(parts)


def _limit(figures: Record) -> str:
    return f"; at most {words.percent(float(figures['limit']))} may be" if "limit" in figures else ""


def _sound_evidence(figures: Record) -> str:
    experts, excluded = _whole(figures, "experts"), words.percent(float(figures["excluded"]))
    text = f"{experts} expert episodes, which leave open a fault in {excluded} of the seeds"
    share, comparable = float(figures["contradicted"]), _whole(figures, "comparable")
    if not comparable:
        return f"{text}; no solved end can be compared with others"
    most = f" (bound {words.percent(float(figures['bound']))})" if "bound" in figures else ""
    ends = f"{round(share * comparable)} of {comparable} solved ends occur unsolved elsewhere{most}"
    return f"{text}; {ends}{_limit(figures)}"


_SENTENCES: Mapping[str, Callable[[Record], str]] = {
    "sound_evidence": _sound_evidence,
    "static_policy": _violations,
    "abstains": lambda figures: _of(figures, "abstains", "frames", "frames got no answer"),
    "deterministic": lambda figures: _of(figures, "deterministic", "frames", "frames got another number again"),
    "experts_complete": _experts_complete,
    "already_done": lambda figures: _of(figures, "already_done", "episodes", "episodes begin with it done"),
    "random_completion": _random_completion,
}
