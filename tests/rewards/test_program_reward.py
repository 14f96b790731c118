"""A program as a reward source: latched, bounded, per slot, with abstains counted and a quarantine."""

import logging
import pickle

import numpy as np
import pytest

from carl.config import VerifyConfig
from carl.errors import ProgramError, TaskError
from carl.program import RewardProgram, SubTask
from carl.rewards.latch import PROGRESS_SLOTS
from carl.rewards.program import ProgramReward
from carl.rewards.session import MAX_ABSTAINS, SourceSession
from carl.rewards.source import Judged, Seen
from carl.sandbox.box import Limits
from carl.seeding import Role, seed_of

LEVEL = """
def progress(frame, initial):
    value = int(frame[0, 0, {channel}]) - int(initial[0, 0, {channel}])
    if value > 200:
        return 1 / 0
    return max(0.0, value / 100)
"""


def level(channel: int) -> str:
    return LEVEL.replace("{channel}", str(channel))


TWO = RewardProgram(
    subtasks=(SubTask(name="red", code=level(0), weight=2.0), SubTask(name="green", source=level(1), weight=3.0))
)


def frames(*pixels: tuple[int, int]) -> np.ndarray:
    shown = np.zeros((len(pixels), 6, 6, 3), np.uint8)
    for row, (red, green) in enumerate(pixels):
        shown[row, ..., 0], shown[row, ..., 1] = red, green
    return shown


@pytest.fixture
def session():
    opened = SourceSession(ProgramReward(TWO), 3)
    yield opened
    opened.close()


def look(session, which: np.ndarray, began: bool, shown: np.ndarray) -> Judged:
    return session.look(Seen(which, np.full(len(which), began), shown))


def reset(session, which: np.ndarray, shown: np.ndarray) -> Judged:
    return look(session, which, True, shown)


def step(session, which: np.ndarray, shown: np.ndarray) -> Judged:
    return look(session, which, False, shown)


def slots(*which: int) -> np.ndarray:
    return np.array(which, dtype=np.intp)


def test_steps_earn_the_weighted_increase_of_the_best(session):
    first = reset(session, slots(0, 1, 2), frames((0, 0), (10, 0), (0, 0)))
    assert first.reward.tolist() == [0, 0, 0]
    assert first.shown.shape == (3, PROGRESS_SLOTS)
    assert first.shown.dtype == np.float32
    assert not first.abstained.any()
    assert step(session, slots(0, 1, 2), frames((50, 0), (60, 0), (0, 0))).reward.tolist() == [1.0, 1.0, 0.0]
    back = step(session, slots(0, 1, 2), frames((20, 0), (60, 0), (0, 99)))
    assert back.reward.tolist() == [0, 0, 0]
    assert back.shown[:, :2].tolist() == [[0.5, 0], [0.5, 0], [0, 0]]
    done = step(session, slots(0), frames((100, 40)))
    assert done.reward.tolist() == [1.0]
    assert done.shown[0, :3].tolist() == pytest.approx([1.0, 0.4, 0.0])
    assert step(session, slots(0), frames((0, 100))).reward.tolist() == pytest.approx([3 * 0.6])
    assert step(session, slots(0), frames((0, 100))).reward.tolist() == [0]


def test_episodes_and_the_subtasks_that_got_done_in_them_are_counted(session):
    def passed() -> list[int]:
        return [session.counts[key] for key in ("begun", "fired:1", "fired:2")]

    reset(session, slots(0, 1, 2), frames((0, 0), (0, 0), (0, 0)))
    step(session, slots(0, 1, 2), frames((50, 0), (100, 0), (100, 100)))
    assert passed() == [3, 2, 1], "done in the frame in which it became active, though that earns nothing"
    step(session, slots(0, 1, 2), frames((50, 0), (100, 100), (100, 0)))
    assert passed() == [3, 2, 2]
    reset(session, slots(0, 1), frames((0, 0), (0, 0)))
    step(session, slots(0, 1), frames((100, 0), (0, 100)))
    step(session, slots(0), frames((100, 0)))
    assert passed() == [5, 3, 2], "once an episode"


def test_slots_are_reset_on_their_own_and_keep_their_initial_frames(session):
    reset(session, slots(0, 1, 2), frames((0, 0), (0, 0), (0, 0)))
    step(session, slots(0, 1, 2), frames((50, 0), (50, 0), (50, 0)))
    again = reset(session, slots(1), frames((40, 0)))
    assert again.shown[0].tolist() == [0] * PROGRESS_SLOTS
    stepped = step(session, slots(2, 1), frames((60, 0), (60, 0)))
    assert stepped.reward.tolist() == pytest.approx([0.2, 0.4])
    assert stepped.shown[:, 0].tolist() == pytest.approx([0.6, 0.2])


def test_abstains_earn_nothing_and_are_counted(session, caplog):
    reset(session, slots(0, 1), frames((0, 0), (0, 0)))
    judged = step(session, slots(0, 1), frames((255, 0), (50, 0)))
    assert judged.reward.tolist() == [0, 1.0]
    assert judged.abstained.tolist() == [True, False]
    assert session.abstains == 1
    assert step(session, slots(0), frames((50, 0))).reward.tolist() == [1.0]
    assert not session.quarantined
    assert not caplog.records


def test_too_many_abstains_lead_to_quarantine_logged_once(session, caplog):
    reset(session, slots(0, 1, 2), frames((0, 0), (0, 0), (0, 0)))
    step(session, slots(0), frames((50, 0)))
    with caplog.at_level(logging.WARNING):
        for _ in range(MAX_ABSTAINS):
            step(session, slots(1), frames((255, 0)))
        assert not session.quarantined
        for _ in range(9):
            judged = step(
                session, slots(0, 1), frames((90, 0), (90, 0)) if session.quarantined else frames((50, 0), (255, 0))
            )
    assert session.quarantined
    assert judged.reward.tolist() == [0, 0]
    assert judged.abstained.all()
    assert judged.shown[0, 0] == 0.5
    assert session.abstains == MAX_ABSTAINS + 1
    assert len(caplog.records) == 1
    assert "ZeroDivisionError" in caplog.text
    began = reset(session, slots(0), frames((0, 0)))
    assert began.abstained.all()
    assert began.shown[0, 0] == 0


def test_seldom_abstains_are_tolerated(session):
    reset(session, slots(0), frames((0, 0)))
    for turn in range(1500):
        step(session, slots(0), frames((255 if turn % 25 == 0 else 10, 0)))
    assert session.abstains == 60
    assert not session.quarantined


def test_the_cache_changes_no_reward():
    """Random play over few frames, with episodes that begin anew and frames that cannot be judged."""
    rng = np.random.default_rng(seed_of(0, Role.RANDOM, 0))
    cached, plain = (SourceSession(ProgramReward(TWO, cache=cache), 4) for cache in (True, False))
    everyone, looked_at = slots(0, 1, 2, 3), 0
    for turn in range(200):
        which = everyone if turn == 0 else np.flatnonzero(rng.random(4) < 0.8)
        shown = frames(*((int(rng.choice([0, 0, 40, 80, 100])), int(rng.choice([0, 50, 99]))) for _ in which))
        if turn % 50 == 49:
            shown[:1, ..., 0] = 255  # this one raises
        began = rng.random(len(which)) < 0.05 if turn else np.ones(4, dtype=bool)
        answers = [session.look(Seen(which, began, shown)) for session in (cached, plain)]
        assert np.array_equal(answers[0].reward, answers[1].reward)
        assert np.array_equal(answers[0].shown, answers[1].shown)
        assert np.array_equal(answers[0].abstained, answers[1].abstained)
        looked_at += len(which)
    assert cached.abstains == plain.abstains > 0
    assert cached.counts["cache_hits"] > cached.counts["cache_misses"] > 0
    assert plain.counts["cache_hits"] == plain.counts["cache_misses"] == 0
    cached.close()
    plain.close()


def test_a_source_is_picklable_and_named_by_its_program():
    source = ProgramReward.of(TWO, VerifyConfig(deadline_s=0.5, memory_mb=300))
    assert source.limits == Limits(deadline_s=0.5, memory_mb=300)
    assert pickle.loads(pickle.dumps(source)) == source
    assert source.id == TWO.id
    assert hash(source) == hash(ProgramReward(TWO, source.limits))


def test_the_policy_holds_here_too():
    hostile = RewardProgram(subtasks=(SubTask(name="a", code="import os\n" + level(0)),))
    with pytest.raises(ProgramError, match="import os"):
        ProgramReward(hostile).open(1)


def test_frames_that_change_their_size_are_a_clear_error(session):
    reset(session, slots(0), frames((0, 0)))
    with pytest.raises(TaskError, match="one size"):
        reset(session, slots(1), np.zeros((1, 7, 6, 3), np.uint8))


def test_closing_twice_is_harmless(session):
    session.close()
    session.close()


def test_what_rests_is_looked_at_though_its_frame_does_not_change():
    resting = RewardProgram(subtasks=(SubTask(name="rest", code=level(0), hold=3),))
    source = SourceSession(ProgramReward(resting), 1)
    slot = np.array([0])
    reset(source, slot, frames((0, 0)))
    paid = [float(step(source, slot, frames((100, 0))).reward[0]) for _ in range(4)]
    source.close()
    assert paid == [0.0, 0.0, 1.0, 0.0]
