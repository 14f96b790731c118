"""Which steps of half-trained play are random: drawn from an episode's seed alone, so that it need not be recorded."""

from collections.abc import Iterator

import numpy as np

SHARES = (0.1, 0.6)
"""Between these lies the share of random actions in half-trained play, drawn anew for each episode."""


def strays(seed: int) -> Iterator[bool]:
    """Whether each step in turn of the half-trained episode of ``seed`` is a random one, and not the expert's."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(*SHARES)
    while True:
        yield bool(rng.random() < share)
