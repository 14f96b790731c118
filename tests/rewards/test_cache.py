"""The cache of judgements: what was judged is not judged again, and nothing is mixed up."""

import numpy as np

from carl.rewards.cache import JudgementCache
from carl.seeding import Role, seed_of

RNG = np.random.default_rng(seed_of(0, Role.EXPERT, 0))
FRAMES = RNG.integers(256, size=(4, 8, 8, 3), dtype=np.uint8)


class Judge:
    """Progress depends on frame, initial and sub-task; remembers what it was asked."""

    def __init__(self, frames, initials, slots):
        self.frames, self.initials, self.slots = frames, initials, slots
        self.asked = 0

    def __call__(self, rows, tasks):
        self.asked += len(rows)
        values = [
            (int(self.frames[r].sum()) + 3 * int(self.initials[self.slots[r]].sum()) + 7 * t) % 101 / 101
            for r, t in zip(rows, tasks, strict=True)
        ]
        return np.array(values)


def judged(cache, frames, initials, slots, tasks):
    judge = Judge(frames, initials, slots)
    rows = np.arange(len(slots))
    values = cache.judge(frames, slots, rows, np.array(tasks), judge)
    assert np.array_equal(values, Judge(frames, initials, slots)(rows, tasks))
    return judge.asked


def test_a_frame_is_judged_once_for_each_initial_frame_and_sub_task():
    cache, slots = JudgementCache(2), np.array([0, 1])
    initials = FRAMES[:2]
    cache.begin(slots, initials)
    frames = FRAMES[[2, 2]]
    assert judged(cache, frames, initials, slots, [0, 0]) == 2  # the same frame, after other beginnings
    assert judged(cache, frames, initials, slots, [0, 0]) == 0
    assert judged(cache, frames, initials, slots, [1, 0]) == 1
    assert (cache.hits, cache.misses) == (3, 3)
    cache.begin(slots[:1], FRAMES[3:])
    assert judged(cache, frames, np.stack([FRAMES[3], FRAMES[1]]), slots, [0, 0]) == 1


def test_abstains_are_asked_for_again():
    cache, slots = JudgementCache(1), np.array([0])
    cache.begin(slots, FRAMES[:1])
    for value in (np.nan, 0.5):
        assert np.array_equal(
            cache.judge(FRAMES[1:2], slots, slots, slots, lambda rows, tasks, value=value: np.array([value])),
            [value],
            equal_nan=True,
        )


def test_memory_is_bounded_and_the_longest_unused_goes_first():
    cache, slots = JudgementCache(1, entries=2), np.array([0])
    cache.begin(slots, FRAMES[:1])
    asked = [judged(cache, FRAMES[i : i + 1], FRAMES[:1], slots, [0]) for i in (1, 2, 1, 3, 1, 2)]
    assert asked == [1, 1, 0, 1, 0, 1]
