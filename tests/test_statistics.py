"""Intervals and bounds of shares."""

import pytest
from scipy.stats import beta, binom

from carl.statistics import exact_bound


@pytest.mark.parametrize(("successes", "trials", "bound"), [(0, 200, 0.01487), (0, 60, 0.04870), (3, 260, 0.02955)])
def test_the_exact_bound_by_its_table(successes: int, trials: int, bound: float) -> None:
    assert exact_bound(successes, trials) == pytest.approx(bound, abs=1e-5)


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (1, 50), (49, 50), (20, 200)])
def test_at_the_exact_bound_so_few_successes_are_as_likely_as_asked_for(successes: int, trials: int) -> None:
    bound = exact_bound(successes, trials, 0.9)
    assert binom.cdf(successes, trials, bound) == pytest.approx(0.1)
    assert bound == pytest.approx(beta.ppf(0.9, successes + 1, trials - successes))


def test_nothing_is_bounded_without_trials_or_failures() -> None:
    assert exact_bound(0, 0) == exact_bound(5, 5) == 1.0


@pytest.mark.parametrize(("successes", "trials", "confidence"), [(6, 5, 0.95), (-1, 5, 0.95), (1, 5, 1.0)])
def test_what_is_no_share_is_refused(successes: int, trials: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="no bound"):
        exact_bound(successes, trials, confidence)
