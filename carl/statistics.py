"""Confidence intervals, and the exact bound of a share."""

from collections.abc import Mapping, Sequence
from math import ceil, log, log1p, sqrt
from statistics import fmean, stdev

NORMAL_95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


def trials_to_exclude(share: float) -> int:
    """How many trials without a failure exclude, at 95 %, that more than ``share`` of all fail: the smallest n with
    (1 - share)^n <= 0.05 (exact binomial; the "rule of three", n = 3 / share, approximates it)."""
    return ceil(log(0.05) / log1p(-share))


def wilson_interval(successes: float, trials: int, z: float = NORMAL_95) -> tuple[float, float]:
    """The score interval of a share (E. B. Wilson, JASA 22, 1927), by default at 95 %; (0, 1) without trials."""
    if trials <= 0:
        return 0.0, 1.0
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    low = 0.0 if successes <= 0 else centre - half
    high = 1.0 if successes >= trials else centre + half
    return low, high


def exact_bound(successes: int, trials: int, confidence: float = 0.95) -> float:
    """What a share is at most, with ``confidence``, after ``successes`` in ``trials``; 1 without trials.

    The one-sided bound of C. J. Clopper and E. S. Pearson (Biometrika 26, 1934): the largest share with which so few
    successes, or fewer, are at least ``1 - confidence`` likely. None in n trials leaves about 3/n (J. A. Hanley and
    A. Lippman-Hand, JAMA 249, 1983). A lower bound is ``1 - exact_bound(trials - successes, trials)``.

    Raises ValueError unless 0 <= successes <= trials and 0 < confidence < 1.
    """
    if not 0 <= successes <= trials or not 0 < confidence < 1:
        raise ValueError(f"no bound at confidence {confidence} for {successes} of {trials}")
    if successes == trials:
        return 1.0
    if successes == 0:
        return float(1.0 - (1.0 - confidence) ** (1.0 / trials))
    from scipy.special import betaincinv

    return float(betaincinv(successes + 1, trials - successes, confidence))


def left_open(trials: Mapping[str, int]) -> str:
    """In words, in what share of seeds a fault may hide at 95 % from so many episodes of each kind without one."""
    bounds = [
        f"{100 * exact_bound(0, count):.1f} % of the seeds ({count} {kind} episodes)" for kind, count in trials.items()
    ]
    return (
        f"at 95 %, these episodes cannot exclude a fault in {', '.join(bounds)}" if bounds else "there are no episodes"
    )


def t_interval(shares: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of ``shares`` by Student's t, clipped to [0, 1]; (0, 1) for fewer than two.

    A bootstrap over as few values as the seeds of a sweep would be too narrow.
    """
    from scipy.stats import t

    if len(shares) < 2:
        return 0.0, 1.0
    mean, half = fmean(shares), float(t.ppf(0.975, len(shares) - 1)) * stdev(shares) / sqrt(len(shares))
    return max(0.0, mean - half), min(1.0, mean + half)
