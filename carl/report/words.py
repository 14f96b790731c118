"""The sentences of a report, and its numbers as people read them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ARM_NAMES: Mapping[str, str] = {
    "code": "code reward",
    "sparse+progress": "sparse reward with the same observation",
    "sparse": "sparse reward without progress in it",
}

NORMAL_95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Rate:
    """A share of episodes, with its 95 % interval."""

    share: float
    episodes: int

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.share, self.episodes)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{percent(self.share)} of {self.episodes} episodes (95 % interval {percent(low)} to {percent(high)})"


@dataclass(frozen=True)
class Outcome:
    """What an arm reached, and after how many environment steps (None if the run does not say)."""

    arm: str
    rate: Rate
    env_steps: int | None


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927); (0, 1) if nothing was counted."""
    if count <= 0:
        return 0.0, 1.0
    square = NORMAL_95**2 / count
    centre = (share + square / 2) / (1 + square)
    half = NORMAL_95 / (1 + square) * math.sqrt(share * (1 - share) / count + square / count / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def outcome(arm: str, evaluation: Mapping[str, Any], env_steps: int | None) -> Outcome | None:
    """Read the greedy evaluation of an arm; None if there is none."""
    found = evaluation.get("greedy") or evaluation
    share, episodes = number(found.get("success_rate")), number(found.get("episodes"))
    if share is None or not episodes:
        return None
    return Outcome(arm, Rate(min(max(share, 0.0), 1.0), int(episodes)), env_steps)


def verdict(code: Outcome | None, baselines: list[Outcome], weighed: bool) -> str:
    """One to three sentences: what the code reward reached, what the baselines did, and who is ahead.

    ``weighed`` says that the environment's own reward is mixed into the code reward.
    """
    if code is None:
        return _without_code(baselines)
    name = "code reward with the environment’s own mixed in" if weighed else "code reward"
    said = f"The policy trained on the {name} solves {code.rate}{_after(code.env_steps)}."
    if not baselines:
        return f"{said} No baseline was trained, so whether the sparse reward would have done is not known."
    others = "; ".join(f"the {ARM_NAMES[one.arm]} reaches {one.rate}{_steps(one, code)}" for one in baselines)
    return f"{said} {others[0].upper()}{others[1:]}. {_compared(code, max(baselines, key=lambda one: one.rate.share))}"


def _compared(code: Outcome, best: Outcome) -> str:
    name = ARM_NAMES[best.arm]
    if best.rate.share >= code.rate.share:
        well = "as well" if best.rate.share == code.rate.share else "better"
        return f"So the {name} does {well} here: the final success rate shows no gain from the code reward."
    if best.rate.interval[1] >= code.rate.interval[0]:
        return f"The intervals of the code reward and the {name} overlap: the difference may be chance."
    return "The difference is larger than chance explains, for one training run each."


def _without_code(baselines: list[Outcome]) -> str:
    if not baselines:
        return "No policy has been evaluated yet, so there is no result to report."
    others = "; ".join(f"the {ARM_NAMES[one.arm]} reaches {one.rate}{_after(one.env_steps)}" for one in baselines)
    return f"No policy trained on a code reward has been evaluated. {others[0].upper()}{others[1:]}."


def _after(env_steps: int | None) -> str:
    return "" if env_steps is None else f" after {count(env_steps)} environment steps"


def _steps(one: Outcome, code: Outcome) -> str:
    """Says whether the baseline had as many steps; two per cent apart counts as the same."""
    if one.env_steps is None or code.env_steps is None:
        return ""
    if abs(one.env_steps - code.env_steps) <= 0.02 * code.env_steps:
        return " at the same number of steps"
    return f" after {count(one.env_steps)} steps, not the same number"


def number(value: Any) -> float | None:
    """``value`` as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def percent(share: float) -> str:
    """0.985 as '98.5 %', 1.0 as '100 %'."""
    return f"{round(100 * share, 1):g} %"


def count(value: Any) -> str:
    """Thousands apart by a narrow space; a dash where there is no number."""
    found = number(value)
    return "–" if found is None else f"{found:,.0f}".replace(",", "\u202f")  # noqa: RUF001  the dash is meant


def seconds(value: Any) -> str:
    """Seconds as people say them: '0.4 s', '38 s', '4 min 05 s'."""
    found = number(value)
    if found is None:
        return "–"  # noqa: RUF001  the dash is meant
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
        return {True: "yes", False: "no", None: "–"}[value]  # noqa: RUF001  the dash is meant
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(figure(item) for item in value) + "]"
    return cut(str(value), 300)
