"""What the seam does for any source: it fills what is needed, shows what is shown, and survives what goes wrong."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from carl.errors import BoxError, ProgramError, RewardError, TaskError
from carl.rewards.latch import PROGRESS
from carl.rewards.mix import Mix
from carl.rewards.session import MAX_ABSTAINS, WINDOW, SourceSession
from carl.rewards.source import Judged, Need, Seen
from carl.rewards.vector import PaidVectorEnv
from carl.task import Task
from tests.fakes.corridor import CORRIDOR, Corridor, Furthest
from tests.fakes.sources import Nearer, Palette

RIGHT, LEFT = 1, 0


class Unseen(Corridor):
    """A corridor that cannot be filmed."""

    metadata = {"render_modes": []}  # noqa: RUF012  gymnasium's convention

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.render_mode = None

    def render(self) -> Any:
        raise AssertionError("nobody needs a frame")


@dataclass(frozen=True)
class Witness:
    """Keeps what it saw, and makes of it what ``judge`` does."""

    needs: frozenset[Need] = frozenset()
    shows: gym.spaces.Box | None = None
    id: str = "witness"
    judge: Any = None
    seen: list[Seen] = field(default_factory=list, compare=False)
    counts: dict[str, int] = field(default_factory=dict, compare=False)
    closed: list[bool] = field(default_factory=list, compare=False)

    def open(self, slots: int) -> "Witness":
        return self

    def look(self, seen: Seen) -> Judged:
        self.seen.append(seen)
        rows = len(seen.slots)
        right = Judged(np.zeros(rows), np.zeros((rows, self.shows.shape[0] if self.shows else 0)), np.zeros(rows, bool))
        return self.judge(seen, right) if self.judge else right

    def close(self) -> None:
        self.closed.append(True)


def paid(source: Any, *lengths: int, task: Task = CORRIDOR, kind: type = Corridor, **kwargs: Any) -> PaidVectorEnv:
    return PaidVectorEnv(SyncVectorEnv([partial(kind, 4, length) for length in lengths]), task, source, **kwargs)


# Needs


def test_a_source_that_needs_no_frames_pays_where_nothing_can_be_filmed() -> None:
    env = paid(Nearer(), 20, 20, kind=Unseen)
    env.reset(seed=0)
    rewards = [env.step(np.array([RIGHT, LEFT]))[1].tolist() for _ in range(5)]
    assert rewards == [[0.25, 0.0]] * 4 + [[0.0, 0.0]]
    assert env.single_observation_space.shape == (5,), "it shows nothing"


def test_one_that_needs_frames_cannot_be_paid_there() -> None:
    with pytest.raises(TaskError, match="render_mode='rgb_array'"):
        paid(Furthest(), 20, kind=partial(_unfilmed)).reset(seed=0)


def _unfilmed(*args: int) -> Unseen:
    env = Unseen(*args)
    env.render = lambda: None
    return env


FILLED = ("frames", "observations", "actions", "env_reward", "text")


@pytest.mark.parametrize("need", Need)
def test_what_is_not_needed_is_not_filled(need: Need) -> None:
    source = Witness(needs=frozenset({need}))
    env = paid(source, 20, 20)
    env.reset(seed=0)
    env.step(np.array([RIGHT, LEFT]))
    for seen in source.seen:
        assert [name for name in FILLED if getattr(seen, name) is not None] == [need]
    assert sum(each.renders for each in env.unwrapped.envs) == (4 if need is Need.FRAMES else 0)


def test_what_is_seen_is_what_happened() -> None:
    source = Witness(needs=frozenset(Need))
    env = paid(source, 20, 2, task=replace(CORRIDOR, description="Walk."))
    env.reset(seed=0)
    for actions in ([RIGHT, LEFT], [RIGHT, RIGHT], [RIGHT, LEFT]):
        env.step(np.array(actions))
    assert [seen.began.tolist() for seen in source.seen] == [[True] * 2, [False] * 2, [False] * 2, [False, True]]
    assert [seen.slots.tolist() for seen in source.seen] == [[0, 1]] * 4
    positions = [[0, 0], [1, 0], [2, 1], [3, 0]]
    assert [seen.observations.argmax(axis=1).tolist() for seen in source.seen] == positions
    assert source.seen[0].observations.dtype == np.float32
    assert [seen.actions.tolist() for seen in source.seen] == [
        [[0, 0], [0, 0]],
        [[0, 1], [1, 0]],
        [[0, 1], [0, 1]],
        [[0, 1], [0, 0]],
    ], "one choice of two; none led to where an episode began"
    assert source.seen[3].env_reward.tolist() == [0.0, 0.0]
    env.step(np.array([RIGHT, RIGHT]))
    assert source.seen[4].env_reward.tolist() == [1.0, 0.0]
    assert source.seen[4].text == ["Walk.", "Walk."]


class Worded(Corridor):
    """Says where it is, observes a Dict and is steered by one."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.observation_space = gym.spaces.Dict(at=gym.spaces.Discrete(9), half=gym.spaces.Box(0, 9, (2,)))
        self.action_space = gym.spaces.Dict(go=gym.spaces.Discrete(2, start=3), by=gym.spaces.Box(0, 9, (1,)))

    def step(self, action: Any) -> Any:
        *stepped, _ = super().step(action["go"] - 3)
        return *stepped, {"text": f"at {self.position}"} if self.position else {}

    def _observation(self) -> Any:
        return {"at": self.position, "half": np.full(2, self.position / 2, np.float32)}


def test_dicts_are_flattened_and_an_environments_words_come_from_its_info() -> None:
    source = Witness(needs=frozenset(Need) - {Need.FRAMES})
    env = paid(source, 20, 20, kind=Worded)
    env.reset(seed=0)
    env.step({"go": np.array([4, 3]), "by": np.array([[1.5], [2.5]], np.float32)})
    seen = source.seen[1]
    assert seen.observations.tolist() == [[0, 1, *[0] * 7, 0.5, 0.5], [1, *[0] * 8, 0, 0]]
    assert seen.actions.tolist() == [[0, 1, 1.5], [1, 0, 2.5]]
    assert seen.text == ["at 1", CORRIDOR.description]


def test_what_an_environment_cannot_show_is_a_clear_error() -> None:
    class Growing(Corridor):
        def __init__(self, *args: int) -> None:
            super().__init__(*args)
            self.observation_space = gym.spaces.Sequence(gym.spaces.Discrete(5))

    with pytest.raises(RewardError, match="witness needs observations, and gymnasium cannot flatten Sequence"):
        paid(Witness(needs=frozenset({Need.OBSERVATIONS})), 20, kind=Growing)
    envs = AsyncVectorEnv([Corridor])
    try:
        with pytest.raises(RewardError, match=r"needs frames, and .* hides its sub-environments.*SyncVectorEnv"):
            PaidVectorEnv(envs, CORRIDOR, Palette())
    finally:
        envs.close()


def test_observations_are_seen_where_frames_are_hidden() -> None:
    env = PaidVectorEnv(AsyncVectorEnv([Corridor] * 2), CORRIDOR, Nearer())
    try:
        env.reset(seed=0)
        assert env.step(np.array([RIGHT, LEFT]))[1].tolist() == [0.25, 0.0]
    finally:
        env.close()


# What is shown


def test_an_embedding_is_shown_and_pays_nothing() -> None:
    env = paid(Palette(), 20, 20, mix=Mix(env=1.0, shows=Palette().shows))
    observations, _ = env.reset(seed=0)
    assert observations.shape == (2, 5 + 6)
    assert env.observation_space.contains(observations)
    assert env.single_observation_space.low[5:].tolist() == [-1] * 6
    for _ in range(4):
        observations, rewards, *_ = env.step(np.array([RIGHT, LEFT]))
    assert rewards.tolist() == [1.0, 0.0], "the environment's own"
    means = [env.unwrapped.envs[0].render()[rows].mean(axis=(0, 1)) / 127.5 - 1 for rows in (slice(4), slice(4, 8))]
    np.testing.assert_allclose(observations[0, 5:], np.concatenate(means), rtol=1e-5)
    assert env.counts["cache_hits"] + env.counts["cache_misses"] == 2 * 5


def test_what_is_shown_lies_beside_other_observations_whatever_it_is() -> None:
    env = paid(Palette(), 20, kind=Worded)
    observations, _ = env.reset(seed=0)
    assert observations["progress"].shape == (1, 6)
    assert env.single_observation_space["progress"] == Palette().shows
    assert observations in env.observation_space


def test_a_source_that_shows_something_else_is_refused_and_the_old_one_stays() -> None:
    env = paid(Furthest(), 20)
    env.reset(seed=0)
    wider = Palette(gym.spaces.Box(-1.0, 1.0, (12,), np.float32))
    for other in (Palette(), wider, Nearer()):
        with pytest.raises(RewardError, match=rf"{other.id} shows .*, and these environments were built for Box"):
            env.set_source(2, other)
    assert env.step(np.array([RIGHT]))[1].tolist() == [0.25]
    assert env.version == 1


def test_where_nothing_is_shown_any_source_pays() -> None:
    env = paid(Furthest(), 2, mix=Mix())
    assert env.reset(seed=0)[0].shape == (1, 5)
    for version, source in enumerate((Palette(), Nearer(scale=2.0)), 2):
        env.set_source(version, source)
    rewards = [env.step(np.array([RIGHT]))[1].tolist() for _ in range(4)]
    assert rewards == [[0.25], [0.25], [0.0], [0.5]]


@pytest.mark.parametrize("box", [gym.spaces.Box(0, 1, (2, 2)), gym.spaces.Box(0, 9, (2,), np.int64)])
def test_only_flat_boxes_of_floats_are_shown(box: gym.spaces.Box) -> None:
    with pytest.raises(RewardError, match="a Box of one dimension and of floats, not Box"):
        Mix(shows=box)


def test_what_no_one_has_looked_at_is_shown_inside_the_box() -> None:
    far = gym.spaces.Box(np.array([1.0, -3.0, -1.0]), np.array([2.0, -2.0, 1.0]), dtype=np.float64)
    env = PaidVectorEnv(SyncVectorEnv([Corridor]), CORRIDOR, mix=Mix(shows=far))
    observations, _ = env.reset(seed=0)
    assert observations[0, 5:].tolist() == [1.0, -2.0, 0.0]
    assert env.observation_space.contains(observations)


def test_a_mix_is_known_by_what_was_noted_of_it_by_this_and_earlier_versions() -> None:
    assert Mix(1.0, 0.3, PROGRESS).noted == {"source": 1.0, "env": 0.3, "shows": 8}
    for mix, before in (
        (Mix(1.0, 0.3, PROGRESS), {"code": 1.0, "env": 0.3, "progress": True}),
        (Mix(0.0, 1.0, PROGRESS), {"code": 0.0, "env": 1.0, "progress": True}),
        (Mix(0.0, 1.0), {"code": 0.0, "env": 1.0, "progress": False}),
    ):
        assert Mix.renoted(before) == Mix.renoted(mix.noted) == mix.noted
    assert Mix.renoted({"code": 1.0, "env": 0.0, "progress": False}) != Mix(shows=PROGRESS).noted
    for damaged in (None, 5, {"code": 1.0}):
        assert Mix.renoted(damaged) == damaged


# What goes wrong


def raising(error: Exception) -> Any:
    def judge(seen: Seen, right: Judged) -> Judged:
        raise error

    return judge


def test_whatever_a_source_raises_is_one_kind_of_error_that_names_it() -> None:
    env = paid(Witness(judge=raising(ZeroDivisionError("by nothing"))), 20)
    words = "reward witness: judging raised ZeroDivisionError: by nothing; mend the source, and have it abstain"
    with pytest.raises(RewardError, match=words):
        env.reset(seed=0)


@pytest.mark.parametrize("error", [BoxError("no box"), ProgramError("no program"), TaskError("another size")])
def test_errors_that_tell_what_is_wrong_are_raised_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        paid(Witness(judge=raising(error)), 20).reset(seed=0)
    assert issubclass(BoxError, RewardError)
    assert issubclass(ProgramError, RewardError)


def test_a_source_of_an_older_make_is_refused() -> None:
    env = paid(Nearer(), 20)

    class Older:
        id = "older"

        def open(self, slots: int) -> None: ...

    with pytest.raises(RewardError, match=r"reward older: adopting it raised AttributeError.*'needs'"):
        env.set_source(2, Older())
    assert env.version == 1


@pytest.mark.parametrize("part", ["reward", "shown", "abstained"])
def test_judgements_of_another_shape_are_refused(part: str) -> None:
    source = Witness(judge=lambda seen, right: replace(right, **{part: getattr(right, part)[:1]}))
    with pytest.raises(RewardError, match=r"witness answered .*\(1,.* instead of \(\(2,\), \(2, 0\), \(2,\)\)"):
        paid(source, 20, 20).reset(seed=0)


def test_what_shows_no_number_is_refused_before_a_policy_sees_it() -> None:
    shows = gym.spaces.Box(0.0, 1.0, (1,))
    source = Witness(shows=shows, judge=lambda seen, right: replace(right, shown=np.full((1, 1), np.nan)))
    with pytest.raises(RewardError, match="reward witness shows NaN or an infinity"):
        paid(source, 20).reset(seed=0)


def test_what_is_no_judgement_is_refused() -> None:
    with pytest.raises(RewardError, match="reward witness: judging raised AttributeError"):
        paid(Witness(judge=lambda seen, right: None), 20).reset(seed=0)


def test_a_session_that_cannot_be_closed_is_logged(caplog: Any) -> None:
    class Stuck(Witness):
        def close(self) -> None:
            raise OSError("it stays")

    env = paid(Stuck(), 20)
    env.reset(seed=0)
    with caplog.at_level(logging.ERROR):
        env.close()
    assert "reward witness could not be closed" in caplog.text
    assert "it stays" in caplog.text


def rows(began: bool, *slots: int) -> Seen:
    return Seen(np.array(slots, dtype=np.intp), np.full(len(slots), began))


def blind(where: Sequence[int], reason: str = "too dark") -> Any:
    """Shows 0.5 and pays 1, but abstains in the slots ``where``."""

    def judge(seen: Seen, right: Judged) -> Judged:
        abstained = np.isin(seen.slots, where)
        return Judged(np.where(abstained, 0.0, 1.0), np.full((len(seen.slots), 1), 0.5), abstained, reason)

    return judge


def test_any_source_that_abstains_too_often_is_quarantined_and_its_progress_stays(caplog: Any) -> None:
    source = Witness(shows=gym.spaces.Box(0.0, 1.0, (1,)), judge=blind([1]))
    session = SourceSession(source, 2)
    session.look(rows(True, 0, 1))
    with caplog.at_level(logging.WARNING):
        for _ in range(MAX_ABSTAINS - 1):
            assert session.look(rows(False, 0, 1)).reward.tolist() == [1.0, 0.0]
        assert not session.quarantined
        session.look(rows(False, 1))
    assert session.quarantined
    assert session.counts["quarantined"] == 1
    assert source.closed
    looked = len(source.seen)
    after = session.look(rows(False, 0, 1))
    assert (after.reward.tolist(), after.abstained.tolist()) == ([0.0, 0.0], [True, True])
    assert after.shown.tolist() == [[0.5], [0.5]]
    assert session.look(rows(True, 0)).shown.tolist() == [[0.0]], "of a new episode nothing is known"
    assert session.look(rows(False, 0, 1)).shown.tolist() == [[0.0], [0.5]]
    assert len(source.seen) == looked
    assert session.abstains == MAX_ABSTAINS + 1
    assert caplog.text.count("reward witness could not judge 51 of the last 101 frames and earns nothing more") == 1
    assert "the last reason: too dark" in caplog.text


def test_abstains_long_ago_are_forgotten() -> None:
    session = SourceSession(Witness(shows=gym.spaces.Box(0.0, 1.0, (1,)), judge=blind([1])), 2)
    for _ in range(MAX_ABSTAINS):
        session.look(rows(False, 1))
    for _ in range(WINDOW):
        session.look(rows(False, 0))
    session.look(rows(False, 1))
    assert not session.quarantined


def test_quarantine_and_abstains_of_any_source_are_counted_and_the_next_version_pays() -> None:
    env = paid(Nearer(blind=0), 3)
    env.reset(seed=0)
    for _ in range(MAX_ABSTAINS + 10):
        env.step(np.array([LEFT]))
    assert env.counts["quarantined"] == 1
    assert env.counts["abstains"] == env.counts["judged"] == MAX_ABSTAINS + 11
    env.set_source(2, Nearer())
    rewards = [float(env.step(np.array([RIGHT]))[1][0]) for _ in range(8)]
    assert rewards[:4] == [0.0] * 4, "the episode goes on with the one in quarantine"
    assert rewards[4:] == [0.25, 0.25, 0.25, 0.0]
    assert env.counts["quarantined"] == 1, "of a session that is closed"
