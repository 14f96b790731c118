"""What a runner samples in one call: columns over vector steps, made into RLlib's episodes only at the end.

RLlib's own runner appends every step of every slot to an episode object, which takes longer than the environment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

Mask = NDArray[np.bool_]
Columns = Mapping[str, NDArray[Any]]


class Ended(NamedTuple):
    """An episode that is over: its length in steps, its return, and the seconds it took."""

    length: int
    ret: float
    seconds: float


@dataclass
class Ongoing:
    """Where the episodes of all slots stand between two fragments.

    Attributes:
        observations: ``[N, ...]``, the last ones.
        over: ``bool[N]``, episodes that have ended: their slots' next step is a reset.
        ids: names of the episodes.
        lengths, returns: of the episodes so far, ``int[N]`` and ``float[N]``.
        since: when they began, ``float[N]`` seconds.
    """

    observations: NDArray[Any]
    over: Mask
    ids: list[str]
    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]
    since: NDArray[np.float64]

    @classmethod
    def begin(cls, observations: NDArray[Any], now: float) -> "Ongoing":
        """All slots were just reset."""
        slots = len(observations)
        return cls(
            observations,
            np.zeros(slots, dtype=bool),
            [uuid4().hex for _ in range(slots)],
            np.zeros(slots, dtype=np.int64),
            np.zeros(slots),
            np.full(slots, now),
        )


class Fragment:
    """Vector steps from ``ongoing`` on; ``close`` cuts them into episodes and moves ``ongoing`` to their end."""

    def __init__(self, ongoing: Ongoing) -> None:
        self._ongoing = ongoing
        self._observations = [ongoing.observations]
        self._over = [ongoing.over]
        self._rows: list[Columns] = []
        self._notes: list[Columns] = []
        self._ends: list[tuple[Mask, Mask]] = []
        self._times: list[float] = []
        self.steps, self.episodes = 0, 0

    @property
    def observations(self) -> NDArray[Any]:
        """The latest, ``[N, ...]``."""
        return self._observations[-1]

    def add(
        self,
        observations: NDArray[Any],
        terminated: Mask,
        truncated: Mask,
        now: float,
        columns: Columns,
        notes: Columns,
    ) -> None:
        """Add a vector step that ended at ``now`` seconds.

        ``columns`` are ``actions``, ``rewards`` and what else learning needs; ``notes`` travel beside it as the
        episodes' ``custom_data``. All have a row for each slot. Slots whose episode was over were reset in this step:
        what they did and earned is ignored.
        """
        stepped = ~self._over[-1]
        over = (terminated | truncated) & stepped
        self._observations.append(observations)
        self._over.append(over)
        self._rows.append(columns)
        self._notes.append(notes)
        self._ends.append((terminated, truncated))
        self._times.append(now)
        self.steps += int(stepped.sum())
        self.episodes += int(over.sum())

    def close(self) -> tuple[list[SingleAgentEpisode], list[Ended]]:
        """The episodes, first those that ended, in their order, then the others by slot; and the ended ones' sums."""
        if not self._rows:
            return [], []
        observations = np.stack(self._observations, axis=1)
        columns, notes = _stacked(self._rows), _stacked(self._notes)
        resets = np.stack(self._over[:-1], axis=1)
        ended: list[tuple[int, int, SingleAgentEpisode, Ended]] = []
        cut: list[SingleAgentEpisode] = []
        for slot in range(len(resets)):
            edges = [*np.flatnonzero(resets[slot]).tolist(), len(self._rows)]
            start = 0
            for stop in edges:
                # Steps start .. stop - 1 belong to one episode; step `stop`, if there is one, resets the slot.
                if stop > start:
                    episode = self._episode(slot, start, stop, observations, columns)
                    episode.custom_data.update({name: values[slot, start:stop] for name, values in notes.items()})
                    if episode.is_done:
                        ended.append((stop, slot, episode, self._sums(slot, stop)))
                    else:
                        cut.append(episode)
                if stop < len(self._rows):
                    self._renew(slot, stop)
                start = stop + 1
        self._ongoing.observations, self._ongoing.over = self._observations[-1], self._over[-1]
        ended.sort(key=lambda one: one[:2])
        return [episode for _, _, episode, _ in ended] + cut, [sums for *_, sums in ended]

    def _episode(
        self, slot: int, start: int, stop: int, observations: NDArray[Any], columns: Columns
    ) -> SingleAgentEpisode:
        mine = {name: values[slot, start:stop] for name, values in columns.items()}
        actions, rewards = mine.pop("actions"), mine.pop("rewards")
        terminated, truncated = (bool(ends[slot]) for ends in self._ends[stop - 1])
        ongoing = self._ongoing
        began_at = int(ongoing.lengths[slot])
        ongoing.lengths[slot] += stop - start
        ongoing.returns[slot] += float(rewards.sum())
        return SingleAgentEpisode(
            ongoing.ids[slot],
            observations=_buffer(observations[slot, start : stop + 1]),
            infos=[{}] * (stop - start + 1),
            actions=_buffer(actions),
            rewards=_buffer(rewards),
            terminated=terminated,
            truncated=truncated,
            extra_model_outputs={name: _buffer(values) for name, values in mine.items()},
            t_started=began_at,
            len_lookback_buffer=0,
        )

    def _sums(self, slot: int, stop: int) -> Ended:
        ongoing = self._ongoing
        seconds = self._times[stop - 1] - float(ongoing.since[slot])
        return Ended(int(ongoing.lengths[slot]), float(ongoing.returns[slot]), seconds)

    def _renew(self, slot: int, step: int) -> None:
        ongoing = self._ongoing
        ongoing.ids[slot] = uuid4().hex
        ongoing.lengths[slot], ongoing.returns[slot] = 0, 0.0
        ongoing.since[slot] = self._times[step]


def _stacked(rows: Sequence[Columns]) -> Columns:
    """``[N, T, ...]`` for each column."""
    return {name: np.stack([row[name] for row in rows], axis=1) for name in rows[0]}


def _buffer(values: NDArray[Any]) -> InfiniteLookbackBuffer:
    return InfiniteLookbackBuffer(data=values, lookback=0)
