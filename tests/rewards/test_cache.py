"""The cache of judgements: what was judged is not judged again, and nothing is mixed up."""

import numpy as np

from carl.rewards.cache import JudgementCache
from carl.seeding import Role, seed_of

RNG = np.random.default_rng(seed_of(0, Role.EXPERT, 0))
NONE = np.zeros(3, dtype=bool)
FRAMES = RNG.integers(256, size=(4, 8, 8, 3), dtype=np.uint8)


def progress(frame, initial, task):
    return (int(frame.sum()) + 3 * int(initial.sum()) + 7 * task) % 101 / 101


def judged(cache, frames, initials, slots, tasks) -> int:
    """Every answer is right; returns how many had to be asked for."""
    right = np.array([progress(*one) for one in zip(frames, initials, tasks, strict=True)])
    asked = []

    def ask(places):
        asked.extend(places.tolist())
        return right[places]

    cache.see(np.array(slots), NONE[slots], frames)
    assert np.array_equal(cache.judge(np.array(slots), np.array(tasks), ask), right)
    return len(asked)


def test_a_frame_is_judged_once_for_each_initial_frame_and_sub_task():
    cache, slots = JudgementCache(2), np.array([0, 1])
    initials = FRAMES[:2]
    cache.see(slots, ~NONE[slots], initials)
    frames = FRAMES[[2, 2]]
    assert judged(cache, frames, initials, slots, [0, 0]) == 2  # the same frame, after other beginnings
    assert judged(cache, frames, initials, slots, [0, 0]) == 0
    assert judged(cache, frames, initials, slots, [1, 0]) == 1
    assert (cache.hits, cache.misses) == (3, 3)
    cache.see(slots[:1], ~NONE[:1], FRAMES[3:])
    assert judged(cache, frames, np.stack([FRAMES[3], FRAMES[1]]), slots, [0, 0]) == 1


def test_slots_that_show_what_they_showed_are_no_news():
    cache, slots = JudgementCache(3), np.arange(3)
    cache.see(slots, ~NONE[slots], FRAMES[:3])
    assert cache.see(slots, NONE[slots], FRAMES[[0, 3, 2]]).tolist() == [False, True, False]
    assert cache.see(slots[1:], NONE[1:], FRAMES[[3, 0]]).tolist() == [False, True]
    assert cache.see(slots, NONE[slots], FRAMES[[0, 3, 0]]).tolist() == [False, False, False]


def test_frames_may_lie_anywhere_in_memory():
    cache, slots = JudgementCache(1), np.array([0])
    cache.see(slots, ~NONE[slots], FRAMES[:1])
    assert not cache.see(slots, NONE[slots], np.asfortranarray(FRAMES[:1])).any()


def test_abstains_are_asked_for_again():
    cache, slots = JudgementCache(1), np.array([0])
    cache.see(slots, ~NONE[slots], FRAMES[:1])
    for value in (np.nan, 0.5):
        cache.see(slots, NONE[slots], FRAMES[1:2])
        found = cache.judge(slots, slots, lambda places, value=value: np.array([value]))
        assert np.array_equal(found, [value], equal_nan=True)


def test_answers_may_be_several_numbers_of_anything_seen_whatever_the_episode_began_with():
    """An embedding of observations: the same wherever they are seen, and not kept where one number of it is none."""
    cache, slots, part = JudgementCache(2, width=2, from_start=False), np.array([0, 1]), np.zeros(2, dtype=np.intp)
    observed = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, np.nan]], np.float32)
    asked = []

    def embed(places):
        asked.extend(places.tolist())
        return observed[places, 1:]

    for began, rows in ((~NONE[:2], [0, 1]), (NONE[:2], [1, 0]), (~NONE[:2], [0, 0])):
        cache.see(slots, began, observed[rows])
        found = cache.judge(slots, part, lambda places, rows=rows: embed(np.array(rows)[places]))
        assert np.array_equal(found, observed[rows, 1:], equal_nan=True)
        found[:] = 0.0
    assert asked == [0, 1, 1], "what was judged is known in other slots and episodes; what abstained is asked again"
    assert cache.counts == {"cache_hits": 3, "cache_misses": 3}
    assert cache.judge(slots[:0], part[:0], embed).shape == (0, 2)


def test_memory_is_bounded_and_the_longest_unused_goes_first():
    cache = JudgementCache(1, entries=2)
    cache.see(np.array([0]), ~NONE[:1], FRAMES[:1])
    asked = [judged(cache, FRAMES[i : i + 1], FRAMES[:1], [0], [0]) for i in (1, 2, 1, 3, 1, 2)]
    assert asked == [1, 1, 0, 1, 0, 1]
