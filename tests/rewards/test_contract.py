"""Three sources keep the contract that users' sources are held to; what breaks a clause is found by that clause."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from carl.program import RewardProgram, SubTask
from carl.rewards.program import ProgramReward
from carl.rewards.source import Judged, Need, RewardSource, Seen
from carl.rewards.weighted import Weighted
from carl.testing import RewardSourceContract
from carl.testing.reward import judgements, watched
from tests.fakes.corridor import CORRIDOR, Corridor
from tests.fakes.sources import Nearer, NearerSession, Palette

TASK = replace(CORRIDOR, make=partial(Corridor, 3, 9))
"""Random play ends its episodes at different steps, most by arriving."""

WALK = """
def progress(frame, initial):
    if frame[0, 0, 0] == 1 and frame[0, 0, 1] % 2 == 0:
        return 1 / 0
    return frame[0, 0, 0] / 3
"""


def program(walk: str = WALK) -> ProgramReward:
    return ProgramReward(RewardProgram(subtasks=(SubTask(name="walk", code=walk, weight=2.0),)))


class OnTheCorridor(RewardSourceContract):
    @pytest.fixture
    def task(self):
        return TASK


class TestAProgram(OnTheCorridor):
    @pytest.fixture
    def source(self):
        return program()

    @pytest.fixture
    def variant(self):
        return program(WALK.replace("/ 3", "/ 4"))


class TestOneThatReadsObservations(OnTheCorridor):
    @pytest.fixture
    def source(self):
        return Nearer(blind=2)

    @pytest.fixture
    def variant(self):
        return Nearer(scale=2.0, blind=2)


class TestOneThatGivesWay(OnTheCorridor):
    in_parts = True

    @pytest.fixture
    def source(self):
        return Weighted(Nearer(blind=2), 0.25)

    @pytest.fixture
    def variant(self):
        return Weighted(Nearer(blind=2), 0.5)


class TestOneThatShowsAnEmbedding(OnTheCorridor):
    @pytest.fixture
    def source(self):
        return Palette()


# What the contract finds

Look = Callable[[Any, Seen, Judged], Judged]
"""What a session, what it saw and what it should judge are made of instead."""


@dataclass(frozen=True)
class Broken(Nearer):
    """Judges as it should but for what ``look`` makes of it, in a session of ``kind``."""

    look: Look = lambda session, seen, judged: judged
    kind: type[NearerSession] = NearerSession
    shows: gym.spaces.Box | None = None
    name: str = "broken"

    @property
    def id(self) -> str:
        return self.name

    def open(self, slots: int) -> NearerSession:
        session, look = self.kind(self, slots), self.look
        right = session.look
        session.look = lambda seen: look(session, seen, right(seen))
        return session


SHOWN = gym.spaces.Box(0.0, 1.0, (1,), np.float32)


class Renamed(Broken):
    @property
    def id(self) -> str:
        return str(id(self))


class Forgetful(Broken):
    def __reduce__(self):
        return (Nearer, ())


class Blindfolded(Broken):
    needs = frozenset({Need.TEXT})


class Secretive(Broken):
    needs = frozenset({Need.OBSERVATIONS})


class Shared(Broken):
    """All its sessions are one."""

    def open(self, slots: int):
        if slots not in OPENED:
            OPENED[slots] = super().open(slots)
        return OPENED[slots]


OPENED: dict[int, Any] = {}


class Shrinking(NearerSession):
    @property
    def counts(self):
        return {"looks": -self.looks}


class Losing(NearerSession):
    @property
    def counts(self):
        return {"looks": self.looks} if self.looks < 3 else {}


class Once(NearerSession):
    def close(self):
        super().close()
        if self.closed > 1:
            raise OSError("closed already")


def earning(change: Callable[[Any, Seen, Any], Any]) -> Look:
    """Another reward: what ``change`` makes of the session, what was seen and the reward."""
    return lambda session, seen, judged: replace(judged, reward=change(session, seen, judged.reward.copy()))


def showing(value: float) -> Look:
    return lambda session, seen, judged: replace(judged, shown=np.full((len(seen.slots), 1), value, np.float32))


def first_alone(session: Any, seen: Seen, reward: Any) -> Any:
    reward[1:] = 0
    return reward


def more_for_others(session: Any, seen: Seen, reward: Any) -> Any:
    return np.where(seen.began, 0.0, reward + len(seen.slots))


def less_each_time(session: Any, seen: Seen, reward: Any) -> Any:
    return reward / session.looks


def writing(session: Any, seen: Seen, judged: Judged) -> Judged:
    seen.observations[...] = 0
    return judged


def keeping(session: Any, seen: Seen, judged: Judged) -> Judged:
    """Pays for what changed since the last look, which it has not copied."""
    before, session.before = getattr(session, "before", None), (seen.slots, seen.observations)
    if before is None or len(before[0]) != len(seen.slots):
        return judged
    changed = np.abs(seen.observations - before[1]).sum(axis=1).astype(float)
    return replace(judged, reward=np.where(seen.began | judged.abstained, 0.0, changed))


def lending(session: Any, seen: Seen, judged: Judged) -> Judged:
    """Shows a view of the observations."""
    return replace(judged, shown=seen.observations[:, :1])


def by_the_env_reward(session: Any, seen: Seen, judged: Judged) -> Judged:
    if seen.env_reward is None:
        return judged
    return replace(judged, reward=judged.reward + seen.env_reward)


DRAWN = np.random.default_rng(0)

BREACHES: dict[str, tuple[str, RewardSource, str]] = {
    "a copy pays otherwise": (
        "test_it_travels_and_the_copy_judges_the_same",
        Forgetful(scale=3.0),
        "a copy judges otherwise",
    ),
    "chance pays": (
        "test_equal_ids_are_equal_rewards",
        Broken(look=earning(lambda session, seen, reward: reward * DRAWN.random(len(reward)))),
        "judges otherwise the second time",
    ),
    "each copy has an id of its own": ("test_equal_ids_are_equal_rewards", Renamed(), "another id elsewhere"),
    "no id": ("test_equal_ids_are_equal_rewards", Broken(name=""), "cannot be empty"),
    "rewards of another dtype": (
        "test_what_is_judged_is_arrays_of_the_right_shapes",
        Broken(look=earning(lambda session, seen, reward: reward.astype(np.float32))),
        r"reward has to be float64\[3\]",
    ),
    "one reward for all": (
        "test_what_is_judged_is_arrays_of_the_right_shapes",
        Broken(look=earning(lambda session, seen, reward: reward.sum(keepdims=True))),
        r"reward has to be float64\[3\]",
    ),
    "rewards as a list": (
        "test_what_is_judged_is_arrays_of_the_right_shapes",
        Broken(look=earning(lambda session, seen, reward: reward.tolist())),
        "reward is not an array",
    ),
    "more is shown than said": (
        "test_what_is_judged_is_arrays_of_the_right_shapes",
        Broken(look=showing(0.0)),
        r"shown has to be float32\[3, 0\]",
    ),
    "a reward that is none": (
        "test_what_is_judged_is_arrays_of_the_right_shapes",
        Broken(look=earning(lambda session, seen, reward: reward / 0.0)),
        "reward holds NaN or infinities",
    ),
    "a first row that earns": (
        "test_what_begins_an_episode_earns_nothing",
        Broken(look=earning(lambda session, seen, reward: reward + 1e-9)),
        "exactly 0",
    ),
    "an abstain that earns": (
        "test_what_it_could_not_judge_earns_nothing",
        Broken(blind=2, look=earning(lambda session, seen, reward: np.where(seen.began, 0.0, reward + 0.5))),
        "exactly 0",
    ),
    "observations that it does not name": (
        "test_it_judges_by_what_it_needs_alone",
        Blindfolded(),
        "does not name in `needs`",
    ),
    "a reward that it does not name": (
        "test_it_judges_by_what_it_needs_alone",
        Secretive(look=by_the_env_reward),
        "by what it needs alone",
    ),
    "outside of its box": (
        "test_what_is_shown_lies_in_its_box",
        Broken(shows=SHOWN, look=showing(1.5)),
        "1.5 is shown, outside of Box",
    ),
    "a box of integers": (
        "test_what_is_shown_lies_in_its_box",
        Broken(shows=gym.spaces.Box(0, 1, (1,), np.int64), look=showing(0.0)),
        "of floats",
    ),
    "a picture": (
        "test_what_is_shown_lies_in_its_box",
        Broken(shows=gym.spaces.Box(0, 1, (1, 1), np.float32), look=showing(0.0)),
        "one dimension",
    ),
    "slots that count each other": (
        "test_slots_are_judged_apart",
        Broken(look=earning(more_for_others)),
        "slot 0 is judged otherwise without the others",
    ),
    "a first row alone": (
        "test_rows_are_judged_in_any_order",
        Broken(look=earning(first_alone)),
        "in another order",
    ),
    "sessions that are one": (
        "test_sessions_and_episodes_do_not_touch_each_other",
        Shared(),
        "a second session changes",
    ),
    "less for later episodes": (
        "test_sessions_and_episodes_do_not_touch_each_other",
        Broken(look=earning(less_each_time)),
        "changes later episodes",
    ),
    "it writes to what it sees": (
        "test_arrays_are_neither_written_nor_kept",
        Broken(look=writing),
        "it writes to the observations of Seen",
    ),
    "it keeps what it sees": ("test_arrays_are_neither_written_nor_kept", Broken(look=keeping), "keeps arrays of Seen"),
    "it answers in what it sees": (
        "test_arrays_are_neither_written_nor_kept",
        Broken(shows=SHOWN, look=lending),
        "changes with the arrays of Seen",
    ),
    "counts that shrink": ("test_counts_only_grow", Broken(kind=Shrinking), "'looks' shrank from 0 to -1"),
    "counts that go": ("test_counts_only_grow", Broken(kind=Losing), "'looks' is missing"),
    "closed once": ("test_closing_twice_is_harmless", Broken(kind=Once), "closed already"),
}


def judged_by(clause: str, source: RewardSource, **more: Any) -> None:
    """Run one clause of the contract on ``source``, with what pytest would hand to it."""
    contract = OnTheCorridor()
    fixtures: dict[str, Any] = {"source": source, "variant": None} | more
    fixtures["stream"] = watched(TASK, Nearer(), contract.slots, contract.steps, contract.seed)
    test = getattr(contract, clause)
    wanted = inspect.signature(test).parameters
    if "judged" in wanted:
        fixtures["judged"] = judgements(source, fixtures["stream"])
    test(**{name: fixtures[name] for name in wanted})


@pytest.mark.parametrize("breach", BREACHES)
@pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")
def test_a_source_that_breaks_a_clause_is_found(breach: str) -> None:
    OPENED.clear()
    clause, source, words = BREACHES[breach]
    with pytest.raises((AssertionError, OSError), match=words):
        judged_by(clause, source)
    judged_by(clause, Nearer(blind=2))


def test_another_reward_of_the_same_id_is_found() -> None:
    with pytest.raises(AssertionError, match="another reward has the same id"):
        judged_by("test_equal_ids_are_equal_rewards", Broken(), variant=Broken(scale=2.0))


def test_every_clause_is_broken_by_somebody() -> None:
    clauses = {name for name in vars(RewardSourceContract) if name.startswith("test_")}
    assert clauses - {clause for clause, *_ in BREACHES.values()} == {"test_the_stream_tries_it"}


def test_a_stream_in_which_nothing_begins_beside_others_is_refused() -> None:
    stream = watched(TASK, Nearer(), 3, 3, 0)
    with pytest.raises(AssertionError, match="play more steps"):
        RewardSourceContract().test_the_stream_tries_it(stream)


@pytest.mark.parametrize("source", [program(), Nearer(blind=2)], ids=lambda source: source.id)
def test_what_the_sources_are_tried_on_is_judged_and_abstained_from(source: RewardSource) -> None:
    found = judgements(source, watched(TASK, source, 3, 40, 11))
    assert sum(int(each.abstained.sum()) for each in found) > 5
    assert sum(int((each.reward > 0).sum()) for each in found) > 5
