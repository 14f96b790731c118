"""Episodes of a run's task, which programs are judged on."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carl.artefacts import MANIFEST, TRAJECTORIES, read_json, whole
from carl.config import CollectConfig, VerifyConfig
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import TaskError
from carl.methods.method import Work
from carl.seeding import Role, seeds_after, seeds_of
from carl.task import Task
from carl.verification.rule import Evidence

if TYPE_CHECKING:
    from carl.episodes.collect import Play

Episodes = Mapping[Evidence, Iterable[Trajectory]]
"""Episodes by their kind. Each is read when it is looked at: together they may be larger than the memory."""


def recorded(work: Work[Any], plan: CollectConfig, fewest: int, held_out: int = 0) -> Episodes:
    """Episodes to search with, or the n-th held-out ones, n from 1; recorded unless they are there.

    Kinds that this task does not allow are Missing. Raises TaskError for what the task's code raises, and if it brings
    less than twice ``fewest`` demonstrations.
    """
    from carl.episodes.collect import read_in_parallel

    recording = _Recording(work, plan, held_out)
    experts = recording.experts(fewest)
    stores = {Evidence.EXPERTS: experts, Evidence.RANDOMS: recording.randoms(experts), **recording.others(experts)}
    return {kind: read_in_parallel(store) for kind, store in stores.items()}


@dataclass(frozen=True)
class _Recording:
    """One set of episodes of a run: those to search with (``held_out`` 0), or the n-th held-out ones."""

    work: Work[Any]
    plan: CollectConfig
    held_out: int

    def _store(self, kind: Evidence) -> TrajectoryStore:
        prefix = f"held-out-{self.held_out}-" if self.held_out else ""
        return TrajectoryStore(self.work.directory / f"{TRAJECTORIES}/{prefix}{kind}")

    def experts(self, fewest: int) -> TrajectoryStore:
        """Episodes that the expert solved."""
        from carl.episodes.collect import collect

        store = self._store(Evidence.EXPERTS)
        if store.exists():
            return store
        count, skip = _share_of_experts(self.work.task, self.plan, fewest, self.held_out > 0)
        drawn = self.work.config.seed, Role.HELD_OUT if self.held_out else Role.EXPERT, count, 2 * self.held_out
        return collect(
            self.work.task,
            seeds_of(*drawn),
            "expert",
            store.uri,
            progress=self.work.progress,
            skip=skip,
            spare=seeds_after(*drawn),
            max_failed=self.plan.max_failed,
        )

    def randoms(self, experts: TrajectoryStore) -> TrajectoryStore:
        """Random play, cut in proportion to the longest of ``experts``."""
        from carl.episodes.collect import collect

        store = self._store(Evidence.RANDOMS)
        if store.exists():
            return store
        role = Role.HELD_OUT if self.held_out else Role.RANDOM
        seeds = seeds_of(self.work.config.seed, role, self.plan.random_episodes, 2 * self.held_out + 1)
        cut = self._cut(_longest(experts))
        return collect(self.work.task, seeds, "random", store.uri, cut, progress=self.work.progress)

    def others(self, experts: TrajectoryStore) -> dict[Evidence, TrajectoryStore]:
        """A resting agent, half-trained play, and expert play that is cut off."""
        from carl.episodes.kinds import Cut, Mixed, Resting, rare_actions

        count, longest = self.plan.other_episodes, _longest(experts)
        rests, mixes = (
            seeds_of(self.work.config.seed, role, count, self.held_out) for role in (Role.RESTING, Role.MIXED)
        )
        played = experts.endings("seed")
        rare = rare_actions([columns["action"] for columns in experts.read_columns(["action"])])
        rare -= frozenset(self.work.task.idle)
        kinds: dict[Evidence, tuple[list[int], Play]] = {
            Evidence.RESTING: (rests, Resting(rests, min(longest, self._cut(longest)))),
            Evidence.MIXED: (mixes, Mixed(self._cut(longest))),
            Evidence.CUT: (played[:count], Cut(experts, played, rare)),
        }
        return {kind: self._other(kind, *how) for kind, how in kinds.items()} if count else {}

    def _other(self, kind: Evidence, seeds: list[int], play: "Play") -> TrajectoryStore:
        from carl.episodes.collect import collect_as

        store = self._store(kind)
        if store.exists():
            return store
        return collect_as(self.work.task, seeds, kind.value, play, store.uri, self.work.progress)

    def _cut(self, longest: int) -> int:
        return self.plan.max_steps or math.ceil(self.plan.random_cut * longest)


def _longest(store: TrajectoryStore) -> int:
    return max(length for part in store.manifest.parts for length in part.lengths)


def _share_of_experts(task: Task, plan: CollectConfig, fewest: int, held_out: bool) -> tuple[int, int]:
    """How many expert episodes, and how many to pass over: recorded demonstrations are halved between both uses."""
    if task.demonstrations is None:
        return plan.expert_episodes, 0
    from carl.episodes.demonstrations import Demonstrations

    half = len(Demonstrations.of(task, plan.max_failed).usable) // 2
    if half < fewest:
        raise TaskError(
            f"task {task.name!r} has too few demonstrations: half of them judge what the search finds, and "
            f"the other half what was accepted; record at least {2 * fewest}, better {2 * plan.expert_episodes}"
        )
    return min(plan.expert_episodes, half), half if held_out else 0


def dealt(episodes: Iterable[Trajectory], held_out: int) -> list[Trajectory]:
    """Those of ``episodes`` to search with (``held_out`` 0), or to judge by with the n-th held-out ones, n from 1.

    Each seed, in the order in which they come, belongs to one set: every second one to the search, every second one of
    the rest to the first held-out set, and so on. So no program is judged on an episode that it was found with, however
    many sets refuse one.
    """
    places: dict[int, int] = {}
    return [one for one in episodes if _set_of(places.setdefault(one.seed, len(places) + 1)) == held_out]


def _set_of(place: int) -> int:
    """How often 2 divides the place, from 1."""
    return (place & -place).bit_length() - 1


def check_sound(task: Task, episodes: Episodes, config: VerifyConfig) -> None:
    """Raise TaskError, which names the episodes and says what to do, if no program can be judged on ``episodes``."""
    from carl.verification.soundness import sound

    for check in sound(episodes, config):
        if not check.passed:
            raise TaskError(f"task {task.name!r}: {check.message}")


def made(directory: Path, _: Any) -> str | None:
    """A digest of the episodes' lengths, since those of the same seeds are recorded again just so; None if a required
    kind is missing, the others count where they are there. Raises ConfigError for a damaged manifest."""
    manifests = {kind: directory / TRAJECTORIES / kind / MANIFEST for kind in Evidence}
    there = [kind for kind, path in manifests.items() if path.exists()]
    if any(kind.required and kind not in there for kind in Evidence):
        return None
    lengths = []
    for kind in there:
        content = read_json(manifests[kind], dict)
        with whole(str(manifests[kind])):
            lengths.append([length for part in content["parts"] for length in part["lengths"]])
    return hashlib.sha256(json.dumps(lengths).encode()).hexdigest()[:16]
