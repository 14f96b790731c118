"""Numbers that are none, in whatever an environment observes."""

from typing import Any

import numpy as np
import pytest

from carl.rewards.finite import finite


@pytest.mark.parametrize(
    "values",
    [np.nan, np.float32(np.inf), [0.0, np.nan], {"at": (1.0, -np.inf)}, {"at": np.array([0, np.nan], np.float32)}],
)
def test_nan_and_infinities_are_found(values: Any) -> None:
    assert not finite(values)


@pytest.mark.parametrize("values", [1.5, 7, True, "go", [0.0, 1], {"at": (np.float32(1), np.zeros(2))}, np.arange(3)])
def test_numbers_and_what_is_none_are_fine(values: Any) -> None:
    assert finite(values)
