"""What a RewardSource has to do, as pytest tests to inherit."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from carl.rewards.infos import RawInfos
from carl.rewards.source import Judged, Need, RewardSession, RewardSource, Seen, width
from carl.rewards.views import Views
from carl.task import Task

ARRAYS = ("frames", "observations", "actions", "env_reward")
"""The optional arrays of Seen, beside ``slots`` and ``began``."""


class RewardSourceContract:
    """Provide a fixture ``source``, and either ``task``, which is then played at random, or ``stream``."""

    slots: ClassVar[int] = 3
    """Environments that are played side by side."""

    steps: ClassVar[int] = 40
    """Vector steps that are played; episodes should end within them."""

    seed: ClassVar[int] = 11
    """Of the environments and their random actions."""

    in_parts: ClassVar[bool] = False
    """Whether a row may abstain in part and be paid for the rest, as of a program of several sub-tasks."""

    rtol: ClassVar[float] = 1e-5
    """By how much, relatively, a judgement may differ with what else is judged in the same call."""

    @pytest.fixture
    def task(self) -> Task | None:
        """The Task on which the source is tried."""
        return None

    @pytest.fixture
    def variant(self) -> RewardSource | None:
        """A source of the same kind that pays otherwise; None if there is none."""
        return None

    @pytest.fixture
    def stream(self, task: Task | None, source: RewardSource) -> list[Seen]:
        """Vector steps to judge, of ``slots`` slots, with at least what the source needs."""
        assert task is not None, "provide a fixture `task`, or one called `stream` that returns a list of Seen"
        return watched(task, source, self.slots, self.steps, self.seed)

    @pytest.fixture
    def judged(self, source: RewardSource, stream: list[Seen]) -> list[Judged]:
        """What the source makes of ``stream``."""
        return judgements(source, stream)

    def test_the_stream_tries_it(self, stream: list[Seen]) -> None:
        """In some vector step an episode begins while another goes on."""
        assert any(seen.began.any() and not seen.began.all() for seen in stream), (
            "no episode begins while another goes on: play more steps, or an environment whose episodes end sooner"
        )

    def test_it_travels_and_the_copy_judges_the_same(
        self, source: RewardSource, stream: list[Seen], judged: list[Judged]
    ) -> None:
        """A pickled copy has the same needs and shows, and judges alike."""
        copy = _copied(source)
        assert (copy.needs, copy.shows) == (source.needs, source.shows), "a copy needs or shows something else"
        _assert_same(judged, judgements(copy, stream), "a copy judges otherwise", self.rtol)

    def test_equal_ids_are_equal_rewards(
        self, source: RewardSource, variant: RewardSource | None, stream: list[Seen], judged: list[Judged]
    ) -> None:
        """Its id is a text that stays, it judges alike twice, and another reward has another id."""
        assert isinstance(source.id, str)
        assert source.id, "an id names the reward; it cannot be empty"
        assert source.id == source.id == _copied(source).id, "the same reward has another id elsewhere"
        _assert_same(judged, judgements(source, stream), "the same source judges otherwise the second time", self.rtol)
        if variant is not None:
            assert variant.id != source.id, "another reward has the same id"

    def test_what_is_judged_is_arrays_of_the_right_shapes(self, source: RewardSource, stream: list[Seen]) -> None:
        """Judged has reward ``float64[M]``, shown ``float32[M, S]`` and abstained ``bool[M]``."""
        with _opened(source, self.slots) as session:
            for seen in stream:
                found, rows = session.look(_copy(seen)), len(seen.slots)
                _check_array("reward", found.reward, (rows,), np.float64)
                _check_array("shown", found.shown, (rows, width(source.shows)), np.float32)
                _check_array("abstained", found.abstained, (rows,), np.bool_)

    def test_what_begins_an_episode_earns_nothing(self, stream: list[Seen], judged: list[Judged]) -> None:
        """The first row of an episode earns exactly 0."""
        for seen, found in zip(stream, judged, strict=True):
            assert (found.reward[seen.began] == 0).all(), "the first row of an episode has to earn exactly 0"

    def test_what_it_could_not_judge_earns_nothing(self, judged: list[Judged]) -> None:
        """A row that abstained earns exactly 0, unless rows abstain ``in_parts``."""
        if self.in_parts:
            pytest.skip("its rows abstain in part")
        for found in judged:
            assert (found.reward[found.abstained] == 0).all(), "a row that abstained has to earn exactly 0"

    def test_it_judges_by_what_it_needs_alone(
        self, source: RewardSource, stream: list[Seen], judged: list[Judged]
    ) -> None:
        """It judges alike if all of Seen that it does not need is None."""
        assert source.needs <= set(Need), "needs are of carl.rewards.source.Need"
        without: dict[str, Any] = {str(need): None for need in set(Need) - source.needs}
        bare = [replace(seen, **without) for seen in stream]
        try:
            found = judgements(source, bare)
        except Exception as error:  # whatever it does with None
            raise AssertionError(f"it looks at something that it does not name in `needs`: {error!r}") from error
        _assert_same(judged, found, "it judges otherwise by what it needs alone", self.rtol)

    def test_what_is_shown_lies_in_its_box(self, source: RewardSource, judged: list[Judged]) -> None:
        """``shows`` is a Box of one dimension and of floats, and contains what is shown."""
        shows = source.shows
        if shows is None:
            return
        assert isinstance(shows, gym.spaces.Box), "shows is a gymnasium Box, or None"
        assert len(shows.shape) == 1, "shows has one dimension"
        assert np.issubdtype(shows.dtype, np.floating), "shows is of floats"
        for found in judged:
            outside = (found.shown < shows.low) | (found.shown > shows.high)
            assert not outside.any(), f"{found.shown[outside][0]} is shown, outside of {shows}"

    def test_slots_are_judged_apart(self, source: RewardSource, stream: list[Seen], judged: list[Judged]) -> None:
        """A slot's rows are judged alike without the other slots."""
        for slot in range(self.slots):
            places = [np.flatnonzero(seen.slots == slot) for seen in stream]
            mine = [_rows(seen, place) for seen, place in zip(stream, places, strict=True) if place.size]
            alone = judgements(source, [replace(seen, slots=np.zeros(1, dtype=np.intp)) for seen in mine])
            among = [_of(found, place) for found, place in zip(judged, places, strict=True) if place.size]
            _assert_same(among, alone, f"slot {slot} is judged otherwise without the others", self.rtol)

    def test_rows_are_judged_in_any_order(self, source: RewardSource, stream: list[Seen], judged: list[Judged]) -> None:
        """Rows of one step are judged alike in reverse order."""
        orders = [np.arange(len(seen.slots))[::-1] for seen in stream]
        found = judgements(source, [_rows(seen, order) for seen, order in zip(stream, orders, strict=True)])
        usual = [_of(each, order) for each, order in zip(judged, orders, strict=True)]
        _assert_same(usual, found, "rows are judged otherwise in another order", self.rtol)

    def test_sessions_and_episodes_do_not_touch_each_other(
        self, source: RewardSource, stream: list[Seen], judged: list[Judged]
    ) -> None:
        """Neither a second session nor earlier episodes change a judgement."""
        with _opened(source, self.slots) as one, _opened(source, self.slots) as other:
            found = []
            for seen, last in zip(stream, reversed(stream), strict=True):
                other.look(replace(last, began=np.ones(len(last.slots), dtype=bool)))
                found.append(_kept(one.look(seen)))
            _assert_same(judged, found, "a second session changes what the first one judges", self.rtol)
            again = [_kept(one.look(seen)) for seen in stream]
        _assert_same(judged, again, "what was judged before changes later episodes", self.rtol)

    def test_arrays_are_neither_written_nor_kept(
        self, source: RewardSource, stream: list[Seen], judged: list[Judged]
    ) -> None:
        """It writes to no array of Seen, and keeps no reference to one."""
        found = []
        with _opened(source, self.slots) as session:
            for seen in stream:
                passed = _copy(seen)
                answer = session.look(passed)
                for name in (*ARRAYS, "slots", "began"):
                    assert _equal(getattr(seen, name), getattr(passed, name)), f"it writes to the {name} of Seen"
                before = _kept(answer)
                for name in ARRAYS:
                    if getattr(passed, name) is not None:
                        getattr(passed, name)[...] = 77
                _assert_same([before], [answer], "its answer changes with the arrays of Seen", 0.0)
                found.append(before)
        _assert_same(judged, found, "it keeps arrays of Seen, which the next frames overwrite", self.rtol)

    def test_counts_only_grow(self, source: RewardSource, stream: list[Seen]) -> None:
        """Counts are ints that never shrink, and stay when the session is closed."""
        with _opened(source, self.slots) as session:
            before = dict(session.counts)
            for seen in stream:
                session.look(seen)
                counts = dict(session.counts)
                for name, count in before.items():
                    assert isinstance(counts.get(name), int), f"the count {name!r} is missing, or not an int"
                    assert counts[name] >= count, f"the count {name!r} shrank from {count} to {counts[name]}"
                before = counts
        assert dict(session.counts) == before, "counts change when the session is closed"

    def test_closing_twice_is_harmless(self, source: RewardSource, stream: list[Seen]) -> None:
        """A session can be closed twice, and the source opened again."""
        session = source.open(self.slots)
        session.look(stream[0])
        session.close()
        session.close()
        source.open(1).close()


def watched(task: Task, source: RewardSource, slots: int, steps: int, seed: int) -> list[Seen]:
    """``steps`` vector steps of ``slots`` environments of ``task`` that act at random, with all of Seen that they can
    show: frames only if ``source`` needs them. Raises RewardError if they cannot show what it needs."""
    envs: Any = SyncVectorEnv([task.make] * slots, autoreset_mode=AutoresetMode.NEXT_STEP)
    try:
        views = Views(task, envs, RawInfos(envs))
        views.prepare(source)
        spaces = {Need.OBSERVATIONS: envs.single_observation_space, Need.ACTIONS: envs.single_action_space}
        needs = source.needs | {
            Need.ENV_REWARD,
            Need.TEXT,
            *(n for n, each in spaces.items() if each.is_np_flattenable),
        }
        envs.action_space.seed(seed)
        views.stepped(envs.reset(seed=seed)[0])
        began, ended, stream = np.ones(slots, dtype=bool), np.zeros(slots, dtype=bool), []
        for _ in range(steps):
            stream.append(_copy(views.seen(needs, np.arange(slots), began)))
            actions = envs.action_space.sample()
            observations, rewards, terminated, truncated, _ = envs.step(actions)
            views.stepped(observations, actions, rewards)
            began, ended = ended, terminated | truncated
        return stream
    finally:
        envs.close()


def _check_array(name: str, found: Any, shape: tuple[int, ...], dtype: Any) -> None:
    assert isinstance(found, np.ndarray), f"{name} is not an array"
    assert (found.shape, found.dtype) == (shape, dtype), f"{name} has to be {np.dtype(dtype)}{list(shape)}"
    assert np.isfinite(found).all(), f"{name} holds NaN or infinities"


@contextmanager
def _opened(source: RewardSource, slots: int) -> Iterator[RewardSession]:
    session = source.open(slots)
    try:
        yield session
    finally:
        session.close()


def judgements(source: RewardSource, stream: Sequence[Seen]) -> list[Judged]:
    """What a session of ``source`` makes of ``stream``."""
    slots = 1 + max(int(seen.slots.max(initial=0)) for seen in stream)
    with _opened(source, slots) as session:
        return [_kept(session.look(_copy(seen))) for seen in stream]


def _copied(source: RewardSource) -> RewardSource:
    from ray import cloudpickle

    copy: RewardSource = pickle.loads(cloudpickle.dumps(source))  # type: ignore[no-untyped-call]
    return copy


def _rows(seen: Seen, which: Any) -> Seen:
    """The rows ``which`` (``intp[K]``) of ``seen``."""
    arrays = {name: None if (all_ := getattr(seen, name)) is None else all_[which] for name in ARRAYS}
    text = None if seen.text is None else [seen.text[row] for row in which]
    return Seen(seen.slots[which], seen.began[which], text=text, **arrays)


def _copy(seen: Seen) -> Seen:
    return _rows(seen, np.arange(len(seen.slots)))


def _of(judged: Judged, which: Any) -> Judged:
    return Judged(judged.reward[which], judged.shown[which], judged.abstained[which])


def _kept(judged: Judged) -> Judged:
    """A copy, which a session that answers in the same arrays cannot change."""
    return Judged(np.array(judged.reward), np.array(judged.shown), np.array(judged.abstained))


def _equal(one: Any, other: Any) -> bool:
    return one is other or np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")


def _assert_same(usual: Sequence[Judged], found: Sequence[Judged], what: str, rtol: float) -> None:
    """Fail with ``what`` unless both are the same judgements."""
    for step, (one, other) in enumerate(zip(usual, found, strict=True)):
        for name in ("reward", "shown", "abstained"):
            mine, theirs = (np.asarray(getattr(each, name), dtype=np.float64) for each in (one, other))
            same = mine.shape == theirs.shape and np.allclose(mine, theirs, rtol=rtol, atol=rtol, equal_nan=True)
            assert same, f"{what}: {name} in step {step} is {mine.tolist()}, then {theirs.tolist()}"
