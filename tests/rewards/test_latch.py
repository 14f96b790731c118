"""The reward semantics, clause by clause, and against a plain reading of them written for one episode."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from carl.program import DONE, RewardProgram, SubTask
from carl.rewards.latch import Judge, Latch

ABSTAIN = float("nan")
NO_ONE = np.array([], dtype=np.intp)
FIRST = np.array([0])
SOURCE = "def progress(frame, initial):\n    return 0.0\n"


def program(*weights: float, ordered: bool = True) -> RewardProgram:
    subtasks = (SubTask(name=f"step {i}", code=SOURCE, weight=weight) for i, weight in enumerate(weights))
    return RewardProgram(subtasks=tuple(subtasks), ordered=ordered)


def shows(*frames: list[float]) -> Judge:
    """A judge to whom frame i shows ``frames[i][k]`` of sub-task k."""
    table = np.array(frames, dtype=float)
    return lambda rows, tasks: table[rows, tasks]


def reset(latch: Latch, slots: NDArray[np.intp], judge: Judge) -> NDArray[np.bool_]:
    earned, abstained = latch.look(slots, np.ones(len(slots), dtype=bool), judge)
    assert not earned.any()
    return abstained


def step(latch: Latch, slots: NDArray[np.intp], judge: Judge) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return latch.look(slots, np.zeros(len(slots), dtype=bool), judge)


def play(latch: Latch, initial: list[float], *frames: list[float]) -> list[float]:
    """What each frame after the initial one earns, in slot 0."""
    reset(latch, FIRST, shows(initial))
    return [float(step(latch, FIRST, shows(frame))[0][0]) for frame in frames]


# Clause by clause


def test_a_step_earns_the_weighted_increase_of_the_best() -> None:
    assert play(Latch(program(2.0), 1), [0.0], [0.25], [0.75], [1.0]) == [0.5, 1.0, 0.5]


def lasting(*holds: int) -> RewardProgram:
    return RewardProgram(
        subtasks=tuple(SubTask(name=f"step {i}", code=SOURCE, hold=hold) for i, hold in enumerate(holds))
    )


def test_what_has_to_last_pays_once_it_was_shown_done_in_so_many_frames_in_a_row() -> None:
    latch = Latch(lasting(3), 1)
    assert play(latch, [0.0], [0.5], [1.0], [1.0], [0.5], [1.0], [1.0], [1.0], [1.0]) == [0.5, 0, 0, 0, 0, 0, 0.5, 0]
    assert latch.completed([0])
    assert latch.fired.tolist() == [1]


@pytest.mark.parametrize("between", [0.9, ABSTAIN])
def test_flying_by_earns_nothing_however_often(between: float) -> None:
    latch = Latch(lasting(2), 1)
    assert sum(play(latch, [0.0], *[[1.0], [between]] * 5)) == pytest.approx(0.0 if np.isnan(between) else between)
    assert not latch.completed([0])


def test_a_hold_begins_anew_with_the_episode_and_with_the_sub_tasks_turn() -> None:
    latch = Latch(lasting(2, 2), 1)
    play(latch, [0.0, 1.0], [1.0, 1.0])
    assert play(latch, [0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 1.0]) == [0.0, 1.0, 1.0]


def test_what_it_shows_at_activation_is_its_zero() -> None:
    assert play(Latch(program(1.0), 1), [0.5], [0.5], [0.75]) == [0.0, 0.25]


def test_the_zero_of_a_later_subtask_is_what_it_shows_when_the_one_before_is_done() -> None:
    assert play(Latch(program(1.0, 1.0), 1), [0.0, 0.0], [0.5, 0.9], [1.0, 0.25], [0.0, 0.5]) == [0.5, 0.5, 0.25]


def test_several_pass_in_one_frame_and_only_what_was_active_is_paid() -> None:
    latch = Latch(program(1.0, 1.0, 1.0), 1)
    assert play(latch, [0.0, 0.0, 0.0], [1.0, 1.0, 0.5], [0.0, 0.0, 1.0]) == [1.0, 0.5]
    assert latch.completed([0]).all()


def test_going_back_and_forth_earns_nothing() -> None:
    assert play(Latch(program(1.0), 1), [0.0], [0.5], [0.0], [0.5], [0.2], [0.5]) == [0.5, 0, 0, 0, 0]


def test_what_is_done_stays_done() -> None:
    latch = Latch(program(1.0, 1.0), 1)
    assert play(latch, [0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]) == [1.0, 0.0, 1.0]
    assert latch.completed([0]).all()


@pytest.mark.parametrize(("shown", "done"), [(1.0, True), (DONE, True), (1 - 1e-7, True), (1 - 2e-6, False)])
def test_done_means_all_but_a_millionth(shown: float, done: bool) -> None:
    latch = Latch(program(1.0), 1)
    play(latch, [0.0], [shown])
    assert latch.completed([0])[0] == done


def test_only_active_subtasks_are_evaluated() -> None:
    asked: list[list[int]] = []

    def judge(rows: NDArray[np.intp], tasks: NDArray[np.intp]) -> NDArray[np.float64]:
        asked.append(tasks.tolist())
        return np.where(tasks == 0, 1.0, 0.5)

    latch = Latch(program(1.0, 1.0, 1.0), 1)
    reset(latch, FIRST, judge)
    step(latch, FIRST, judge)
    assert asked == [[0], [1], [1]]


def test_free_order_pays_whatever_comes_first() -> None:
    latch = Latch(program(1.0, 3.0, ordered=False), 1)
    assert play(latch, [0.0, 0.0], [0.0, 1.0], [0.5, 1.0], [1.0, 0.0]) == [3.0, 0.5, 0.5]
    assert latch.completed([0]).all()


def test_in_free_order_every_zero_is_the_initial_frames() -> None:
    assert play(Latch(program(1.0, 1.0, ordered=False), 1), [0.5, 1.0], [0.5, 1.0], [1.0, 1.0]) == [0.0, 0.5]


def test_an_abstain_earns_nothing_and_is_flagged() -> None:
    latch = Latch(program(1.0), 1)
    assert not reset(latch, FIRST, shows([0.0])).any()
    earned, abstained = step(latch, FIRST, shows([ABSTAIN]))
    assert (earned[0], abstained[0]) == (0.0, True)
    earned, abstained = step(latch, FIRST, shows([0.5]))
    assert (earned[0], abstained[0]) == (0.5, False)


def test_an_abstain_at_activation_puts_the_zero_off() -> None:
    latch = Latch(program(1.0), 1)
    assert reset(latch, FIRST, shows([ABSTAIN])).all()
    assert [float(step(latch, FIRST, shows([shown]))[0][0]) for shown in (0.75, 1.0)] == [0.0, 0.25]


def test_an_abstain_does_not_take_back_what_was_earned_before_it_in_the_same_frame() -> None:
    latch = Latch(program(1.0, 1.0), 1)
    reset(latch, FIRST, shows([0.0, 0.0]))
    earned, abstained = step(latch, FIRST, shows([1.0, ABSTAIN]))
    assert (earned[0], abstained[0]) == (1.0, True)


def test_a_reset_clears_its_slots_and_no_others() -> None:
    latch = Latch(program(1.0, 1.0), 2)
    both = np.array([0, 1])
    reset(latch, both, shows([0.0, 0.0], [0.0, 0.0]))
    step(latch, both, shows([1.0, 0.5], [1.0, 0.5]))
    reset(latch, np.array([1]), shows([0.25, 0.0]))
    assert latch.best.tolist() == [[1.0, 0.5], [0.25, 0.0]]
    assert latch.active.tolist() == [[False, True], [True, False]]


def test_slots_are_told_apart_in_any_order() -> None:
    latch = Latch(program(1.0), 3)
    reset(latch, np.array([0, 1, 2]), shows([0.0], [0.0], [0.0]))
    earned, abstained = step(latch, np.array([2, 0]), shows([0.75], [ABSTAIN]))
    assert earned.tolist() == [0.75, 0.0]
    assert abstained.tolist() == [False, True]
    assert latch.best[:, 0].tolist() == [0.0, 0.0, 0.75]


def test_episodes_that_begin_and_others_that_go_on_are_looked_at_in_one_round() -> None:
    asked: list[list[int]] = []

    def judge(rows: NDArray[np.intp], tasks: NDArray[np.intp]) -> NDArray[np.float64]:
        asked.append(rows.tolist())
        return np.array([0.75, 1.0])[rows] * (tasks == 0)

    latch = Latch(program(1.0, 1.0), 2)
    reset(latch, np.array([0, 1]), shows([0.5, 0.0], [0.5, 0.0]))
    earned, abstained = latch.look(np.array([1, 0]), np.array([True, False]), judge)
    assert earned.tolist() == [0.0, 0.5], "what begins has its zero there"
    assert latch.best[:, 0].tolist() == [1.0, 0.75]
    assert asked == [[0, 1], [1]], "only the second round is another: sub-task 1 got done"
    assert not abstained.any()
    assert latch.begun == 3


def test_nobody_asked_nothing_judged() -> None:
    latch = Latch(program(1.0), 2)

    def judge(rows: NDArray[np.intp], tasks: NDArray[np.intp]) -> NDArray[np.float64]:
        raise AssertionError("there is no frame to judge")

    earned, abstained = step(latch, NO_ONE, judge)
    assert earned.shape == abstained.shape == (0,)


# Whatever is shown


def reference(weights: list[float], ordered: bool, frames: NDArray[np.float64]) -> list[float]:
    """Rule by rule for one episode; what every frame earns, the initial one included."""
    zero: list[float | None] = [None] * len(weights)
    best = [0.0] * len(weights)
    done = [False] * len(weights)
    earnings = []
    for frame in frames:
        earned = 0.0
        for k, weight in enumerate(weights):
            if ordered and not all(done[:k]):
                break
            shown = frame[k]
            if done[k] or np.isnan(shown):
                continue
            if zero[k] is None:
                zero[k] = best[k] = shown
            elif shown > best[k]:
                earned += weight * (shown - best[k])
                best[k] = shown
            done[k] = best[k] >= DONE
        earnings.append(earned)
    return earnings


SHOWN = np.concatenate([np.resize([0.0, 0.25, 0.5, 0.9, 1 - 1e-7, 1.0, 1.0, ABSTAIN], 128), np.linspace(0.0, 1.0, 128)])
"""What a byte stands for: half of them values that matter, half of them any."""


@st.composite
def episodes(draw: st.DrawFn) -> tuple[list[float], bool, NDArray[np.float64]]:
    """Weights, whether ordered, and what N slots show over time, ``[T, N, K]``; abstains included."""
    weights = draw(st.lists(st.floats(0.1, 5.0), min_size=1, max_size=4))
    shape = draw(st.integers(1, 12)), draw(st.integers(1, 3)), len(weights)
    size = int(np.prod(shape))
    drawn = draw(st.binary(min_size=size, max_size=size))
    return weights, draw(st.booleans()), SHOWN[np.frombuffer(drawn, np.uint8)].reshape(shape)


def earnings_of(latch: Latch, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[T, N]``: what each slot earns at each frame after the initial one, frame 0."""
    everyone = np.arange(values.shape[1])
    reset(latch, everyone, shows(*values[0]))
    steps = [step(latch, everyone, shows(*frames))[0] for frames in values[1:]]
    return np.array(steps).reshape(-1, values.shape[1])


@settings(max_examples=300, deadline=None)
@given(episodes())
def test_it_does_what_the_rules_say(case: tuple[list[float], bool, NDArray[np.float64]]) -> None:
    weights, ordered, values = case
    earnings = earnings_of(Latch(program(*weights, ordered=ordered), values.shape[1]), values)
    for slot in range(values.shape[1]):
        initial, *later = reference(weights, ordered, values[:, slot])
        assert initial == 0
        np.testing.assert_allclose(earnings[:, slot], later, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(episodes())
def test_a_return_is_never_negative_nor_above_the_sum_of_weights(
    case: tuple[list[float], bool, NDArray[np.float64]],
) -> None:
    weights, ordered, values = case
    rewards = program(*weights, ordered=ordered)
    earnings = earnings_of(Latch(rewards, values.shape[1]), values)
    assert (earnings >= 0).all()
    assert (earnings.sum(axis=0) <= rewards.max_return + 1e-9).all()


@settings(max_examples=100, deadline=None)
@given(episodes(), st.integers(2, 4))
def test_seeing_an_episode_again_earns_nothing_in_free_order(
    case: tuple[list[float], bool, NDArray[np.float64]], times: int
) -> None:
    """Every frame was seen once: whatever is shown again can raise no best."""
    weights, _, values = case
    latch = Latch(program(*weights, ordered=False), values.shape[1])
    earnings = earnings_of(latch, np.concatenate([values] * times))
    assert not earnings[len(values) - 1 :].any()


@settings(max_examples=100, deadline=None)
@given(episodes())
def test_slots_do_not_touch_each_other(case: tuple[list[float], bool, NDArray[np.float64]]) -> None:
    weights, ordered, values = case
    make: Callable[[int], Latch] = lambda slots: Latch(program(*weights, ordered=ordered), slots)  # noqa: E731
    together = earnings_of(make(values.shape[1]), values)
    for slot in range(values.shape[1]):
        alone = earnings_of(make(1), values[:, slot : slot + 1])
        assert np.array_equal(together[:, slot], alone[:, 0])
