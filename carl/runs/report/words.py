"""The sentences of a report, and its numbers as people read them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carl.methods.arms import arm_of
from carl.runs.words import number
from carl.statistics import wilson_interval

DASH = "\u2013"
"""Takes the place of a figure that is not recorded."""


@dataclass(frozen=True)
class Rate:
    """A share of episodes, with its 95 % interval."""

    share: float
    episodes: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        return wilson_interval(self.share * self.episodes, self.episodes)

    @property
    def range(self) -> str:
        """The interval in words."""
        low, high = (round(100 * end, 1) for end in self.interval)
        return f"{low:g} to {high:g}\u00a0%"


ACTING: Mapping[str, str] = {"sampled": "sampling its actions", "greedy": "acting greedily"}
"""Modes of evaluation: a policy draws each action from its distribution, or takes the likeliest one."""


@dataclass(frozen=True)
class Outcome:
    """What an arm reached acting in ``mode``, after how many environment steps (None if that is not recorded), and
    its success rates in the other modes that were evaluated."""

    arm: str
    rate: Rate
    env_steps: int | None
    mode: str = ""
    others: Mapping[str, Rate] = field(default_factory=dict)


def headline(evaluation: Mapping[str, Any]) -> str:
    """The mode whose figure stands for an arm."""
    return str(evaluation.get("headline", "greedy"))


def rate(evaluation: Any) -> Rate | None:
    """The success rate of one evaluation; None if it holds none."""
    found = evaluation if isinstance(evaluation, Mapping) else {}
    share, episodes = number(found.get("success_rate")), number(found.get("episodes"))
    return Rate(min(max(share, 0.0), 1.0), int(episodes)) if share is not None and episodes else None


def outcome(arm: str, evaluation: Mapping[str, Any], env_steps: int | None = None) -> Outcome | None:
    """Read an arm's evaluation, or one that was made in a single mode; None if there is none."""
    rates = {mode: found for mode in ACTING if (found := rate(evaluation.get(mode)))}
    mode = headline(evaluation)
    if not rates:
        only = rate(evaluation)
        return Outcome(arm, only, env_steps) if only else None
    if mode not in rates:
        return None
    return Outcome(arm, rates.pop(mode), env_steps, mode, rates)


def verdict(code: Outcome | None, baselines: Sequence[Outcome], weighed: bool) -> str:
    """Two or three sentences: what the code reward reached, what the baselines did, and who is ahead.

    ``weighed``: the environment's own reward is mixed into the code reward.
    """
    if code is None:
        return _without_code(baselines)
    own = arm_of(code.arm).words
    name = f"{own}, with the environment's own mixed in," if weighed else own
    steps = "" if code.env_steps is None else f" after {count(code.env_steps)} environment steps"
    text = (
        f"Trained on the {name} the policy{_acting(code)} solves {percent(code.rate.share)} of {code.rate.episodes} "
        f"unseen episodes{steps} (95\u00a0% interval {code.rate.range}){_otherwise(code)}."
    )
    if not baselines:
        return f"{text} No baseline was trained, so it is not known whether the sparse reward would have done as well."
    best = max(baselines, key=lambda one: one.rate.share)
    return f"{text} {_beside(baselines, code)} {_compared(code, best)}"


def _acting(one: Outcome) -> str:
    return f", {ACTING[one.mode]}," if one.mode else ""


def _otherwise(one: Outcome) -> str:
    """The figures of the other modes."""
    return "".join(
        f", and {ACTING[mode]} {percent(found.share)} of {found.episodes} ({found.range})"
        for mode, found in one.others.items()
    )


def _beside(baselines: Sequence[Outcome], code: Outcome) -> str:
    """The baselines' figures, and whether they had as many steps; two per cent apart counts as the same."""
    wanted = code.env_steps or 0
    apart = [one for one in baselines if one.env_steps is None or abs(one.env_steps - wanted) > 0.02 * wanted]
    if wanted and not apart:
        return f"At the same number of steps {'; '.join(map(_reached, baselines))}."
    text = (
        f"{_reached(one)} after {count(one.env_steps)} steps" if one.env_steps else _reached(one) for one in baselines
    )
    more = " The numbers of steps differ." if wanted and any(one.env_steps for one in apart) else ""
    return f"{_sentence(text)}{more}"


def _reached(one: Outcome) -> str:
    return f"the {arm_of(one.arm).words} reaches {percent(one.rate.share)} ({one.rate.range})"


def _compared(code: Outcome, best: Outcome) -> str:
    name, own = arm_of(best.arm).words, arm_of(code.arm).words
    if best.rate.interval[0] > code.rate.interval[1]:
        return f"So the {name} does better here: the intervals are apart, for one training run each."
    if code.rate.interval[0] > best.rate.interval[1]:
        return "The intervals are apart, for one training run each."
    gain = f", and the final success rate shows no gain from the {own}" if best.rate.share >= code.rate.share else ""
    return f"The intervals of the {own} and the {name} overlap: which does better cannot be told{gain}."


def _without_code(baselines: Sequence[Outcome]) -> str:
    if not baselines:
        return "No policy has been evaluated yet, so there is no result to report."
    return f"No policy trained on a code reward has been evaluated. {_sentence(map(_reached, baselines))}"


def _sentence(parts: Iterable[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def percent(share: float) -> str:
    """0.985 as '98.5 %' with a space that does not break, 1.0 as '100 %'."""
    return f"{round(100 * share, 1):g}\u00a0%"


def count(value: Any) -> str:
    """Thousands apart by a narrow space; a dash where there is no number."""
    found = number(value)
    return DASH if found is None else f"{found:,.0f}".replace(",", "\u202f")


def seconds(value: Any) -> str:
    """Seconds in the units that people use: '0.4 s', '38 s', '4 min 05 s'."""
    found = number(value)
    if found is None:
        return DASH
    if found < 60:
        return f"{found:.1f} s" if found < 10 else f"{found:.0f} s"
    minutes, rest = divmod(round(found), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def cut(text: str, most: int = 4000) -> str:
    """``text``, cut after ``most`` characters and saying so."""
    return text if len(text) <= most else f"{text[:most]}\n… {len(text) - most} more characters"


def figure(value: Any) -> str:
    """Any figure of a check, short."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: DASH}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(figure(item) for item in value) + "]"
    return cut(str(value), 300)
