"""The search without a model, from episodes to ranked programs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

from carl.config import InductionConfig
from carl.console.progress import Progress, silent
from carl.episodes.trajectory import Trajectory
from carl.induction.chains import Chain, chains
from carl.induction.emission import program
from carl.induction.erring import errors
from carl.induction.grading import grades
from carl.induction.layout import Look
from carl.induction.milestones import Final, Goal, Milestone, finals, intermediate
from carl.induction.table import Table, table
from carl.program import RewardProgram

FEWEST = 2
"""Expert episodes."""

PREVIEW = 10
"""Expert episodes, and others, that tell whether to look closer from the start."""

MOST_EARLY = 0.1
"""Success cannot be seen in a frame if what is true of every last frame comes earlier in a larger share of episodes.
The search looks closer if the best chain errs in a larger share of the unseen ones."""


@dataclass(frozen=True)
class Unseen:
    """Episodes that rank programs that were found in others.

    Attributes:
        experts, others: as of a search.
    """

    experts: Sequence[Trajectory] = ()
    others: Sequence[Trajectory] = ()


@dataclass(frozen=True, eq=False)
class Induced:
    """What a search found.

    Attributes:
        programs: at most 200, best first; written when they are looked at.
        refusal: why there is none; empty if there are some.
    """

    programs: Sequence[RewardProgram] = ()
    refusal: str = ""


def induce(
    experts: Iterable[Trajectory],
    randoms: Iterable[Trajectory],
    *,
    others: Iterable[Trajectory] = (),
    unseen: Unseen | None = None,
    settings: InductionConfig | None = None,
    progress: Progress = silent,
) -> Induced:
    """Programs for what ``experts`` do and other play does not; those first that err least in ``unseen`` episodes.

    ``others`` are further episodes beside random play, such as experts with random actions mixed in; those that solve
    the task show it, those that do not are near misses. Of the frames that are measured a third are ``unseen``, if
    there are any. The same episodes give the same programs, within a minute and 1 GB for the default settings: a search
    that was stopped is repeated.
    """
    settings, solved = settings or InductionConfig(), [*experts]
    if len(solved) < FEWEST:
        return Induced(refusal=f"{len(solved)} expert episodes show nothing in common; {FEWEST} are needed at least")
    rest, room = mingled([*others], [*randoms]), settings.frames * 2 // 3 if unseen else settings.frames
    best: tuple[float, Table, list[Chain]] | None = None
    for look in _looks(solved[:PREVIEW], rest[:PREVIEW], room):
        measured = table(solved, rest, room, progress, look=look)
        candidates = finals(measured, Goal.success(measured))
        if refusal := _refusal(candidates):
            continue
        progress("ranking programs", 0)
        ranked, erring = chains(measured, intermediate(measured), candidates), 0.0
        if unseen and unseen.experts:
            other = table(unseen.experts, unseen.others, settings.frames - room, progress, like=measured)
            ranked, erring = _reranked(other, ranked)
        if best is None or erring <= best[0]:
            best = erring, measured, ranked
        if erring <= MOST_EARLY:
            break
    if best is None:
        return Induced(refusal=refusal)
    _, measured, ranked = best
    progress("ranking programs", len(ranked), len(ranked))
    return Induced(_Written(measured, [chain.milestones for chain in ranked], settings.programs))


def induce_step(
    experts: Iterable[Trajectory],
    randoms: Iterable[Trajectory],
    since: Sequence[int],
    until: Sequence[int],
    *,
    settings: InductionConfig | None = None,
    progress: Progress = silent,
) -> Induced:
    """Programs of one sub-task, which expert i has just done in frame ``until[i]``, and not from ``since[i]`` on."""
    settings = settings or InductionConfig()
    measured = table([*experts], [*randoms], settings.frames, progress)
    candidates = finals(measured, Goal.step(measured, since[: measured.experts], until[: measured.experts]))
    if refusal := _refusal(candidates):
        return Induced(refusal=refusal)
    return Induced(_Written(measured, [(final.milestone,) for final in candidates], settings.programs))


def _looks(experts: Sequence[Trajectory], others: Sequence[Trajectory], frames: int) -> list[Look]:
    """From which look on the search may succeed, as a few episodes show: the first by which one condition tells the
    end, or else several."""
    told = []
    for look in Look:
        few = table(experts, others, frames, look=look)
        candidates = finals(few, Goal.success(few))
        if any(len(one.milestone.conditions) == 1 and _tells(one) for one in candidates):
            return [*Look][look:]
        told.append(not _refusal(candidates))
    return [*Look][told.index(True) if any(told) else Look.POINTING :]


def _tells(final: Final) -> bool:
    return max(final.early, final.elsewhere) <= MOST_EARLY


def _reranked(table: Table, found: Sequence[Chain]) -> tuple[list[Chain], float]:
    """Chains, those first that err least in the episodes of a table, in their order among equals; and how the first
    errs."""
    rated = sorted(zip(errors(table, found), found, strict=True), key=lambda pair: pair[0])
    return [chain for _, chain in rated], rated[0][0] if rated else 0.0


def mingled(*groups: Sequence[Trajectory]) -> list[Trajectory]:
    """The episodes of all groups, in an order of which any beginning has its share of every group."""
    placed = [((number + 0.5) / len(group), episode) for group in groups for number, episode in enumerate(group)]
    return [episode for _, episode in sorted(placed, key=lambda pair: pair[0])]


def _refusal(candidates: Sequence[Final]) -> str:
    """Why no frame shows that the goal is reached; empty if some of ``candidates`` tells it."""
    if not candidates:
        return "nothing that is false in every initial frame is true of every expert's last frame"
    early = min(final.early for final in candidates)
    if early > MOST_EARLY:
        return (
            "success cannot be seen in a frame by the things, colours, places and distances that this search knows: "
            f"whatever is true of every expert's last frame is true before in {early:.0%} of the expert episodes"
        )
    return ""


@dataclass(frozen=True, eq=False)
class _Written(Sequence[RewardProgram]):
    """Programs of chains, written when they are asked for: each with progress in between, and each without."""

    table: Table
    chains: Sequence[tuple[Milestone, ...]]
    most: int

    def __len__(self) -> int:
        return min(self.most, 2 * len(self.chains))

    @overload
    def __getitem__(self, index: int) -> RewardProgram: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RewardProgram]: ...
    def __getitem__(self, index: int | slice) -> RewardProgram | Sequence[RewardProgram]:
        numbers = range(len(self))[index]
        return self._written(numbers) if isinstance(numbers, int) else [*map(self._written, numbers)]

    def _written(self, number: int) -> RewardProgram:
        milestones = self.chains[number // 2]
        plain = number % 2 == 1
        return program(self.table, milestones, [None] * len(milestones) if plain else grades(self.table, milestones))
