"""The rule about events: what got done has happened, and was not about to happen."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from carl.episodes.straying import strays
from carl.program import DONE
from carl.statistics import exact_bound
from carl.verification.episode import Episode, Track
from carl.verification.report import Check, Figure
from carl.verification.rule import Case, Evidence, Rule, deciding

USUAL = 2 / 3
"""The actions that experts take most, up to this share of all, are those that move the agent. In MiniGrid they walk and
turn, and neither undoes an event; what does (drop, toggle) they take once in an episode."""


class _Found(NamedTuple):
    """Episodes in which a sub-task got done.

    Attributes:
        whose: they are, and by whose action it may have been undone.
        undone: each of them, with the frame at which it was undone so; -1: it was not.
        most: how many of them may have undone it.
        limit: the share that this comes from.
    """

    whose: str
    undone: Sequence[tuple[Episode, int]]
    most: float
    limit: float


class Lasting(Rule):
    """A sub-task that got done stays so: what is undone by moving on was about to happen, and had not happened.

    On expert episodes a sub-task may be undone only by another one's getting done, as a key is dropped: of at most
    ``limit`` (a share) of the episodes not. In other play real events are undone as well (a door is closed again), but
    not in the next ``AFTER`` frames by the actions that experts take most, which move the agent.

    What an expert's own action undoes in half-trained play, be it any, was of no use to it, as a key that was dropped
    before the door is open and is picked up again. In 27 sub-tasks of right programs for ten rooms that was so in at
    most 1 of 59 episodes; where the door lacks between the key and its being put down, in 12 and 21 % of 240. One
    episode alone proves nothing.

    On 60 experts, 60 random, 45 half-trained and 70 cut episodes of DoorKey-6x6, Unlock and UnlockPickup each, events
    were undone so in 0 % of both; being beside, near or in front of an object was in 80 to 100 % of the experts, and in
    10 to 90 % of the others. Where the way is one of places and nothing lasts, as up a hill, the task raises the limit.
    """

    name = "lasting"
    needs = frozenset({Evidence.EXPERTS})

    def __init__(self, limit: float, by_experts: float | None = None) -> None:
        """``by_experts`` is the limit in expert episodes; None: the same."""
        self._limit, self._by_experts = limit, limit if by_experts is None else by_experts

    def judge(self, case: Case) -> list[Check]:
        """One failed check for every sub-task that does not last."""
        usual = usual_actions(case.experts)
        failed, shares, bounds = [], [], []
        followed = [_followed(case, index) for index in range(len(case.program.subtasks))]
        for index in range(len(case.program.subtasks)):
            for found in self._found(case, index, usual):
                count, total = sum(step >= 0 for _, step in found.undone), len(found.undone)
                shares.append(count / total if total else 0.0)
                bounds.append(exact_bound(count, total))
                if count > found.most:
                    failed.append(self._refused(case, index, found))
                    break
        figures: dict[str, Figure] = {"limit": self._limit, "limit_experts": self._by_experts}
        figures |= {"undone": shares, "bounds": bounds, "followed": followed}
        return failed or [self.passed(_lasted(followed), figures)]

    def _found(self, case: Case, index: int, usual: frozenset[int]) -> Iterator[_Found]:
        """Who might have undone a sub-task: experts, others by moving on, and the expert in half-trained play."""
        others = [one for kind, played in case.episodes.items() if kind is not Evidence.EXPERTS for one in played]
        experts, moving, led_astray = (
            [one for one in played if one.tracks[index].done]
            for played in (case.experts, others, case.episodes.get(Evidence.MIXED, ()))
        )
        by_experts, limit = self._by_experts, self._limit
        undone = [(one, _undone(one, index)) for one in experts]
        yield _Found("expert episodes", undone, by_experts * len(undone), by_experts)
        undone = [(one, _moved_on(one, index, usual)) for one in moving]
        yield _Found("other episodes, by moving on", undone, limit * len(undone), limit)
        undone = [(one, _by_its_expert(one, index)) for one in led_astray]
        whose = "half-trained episodes, by the expert in them"
        yield _Found(whose, undone, max(1.0, by_experts * len(undone)), by_experts)

    def _refused(self, case: Case, index: int, found: _Found) -> Check:
        undone = [(episode, step) for episode, step in found.undone if step >= 0]
        message = (
            f"rewarded too early: {case.named(index)} is undone again in {len(undone)} of {len(found.undone)} "
            f"{found.whose}, so either it had not happened yet, or the later frame is misread. Show 1 for what has "
            "changed and stays so, not for where the agent is, or add the sub-task that has to come first"
        )
        figures: dict[str, Figure] = {
            "undone": len(undone),
            "episodes": len(found.undone),
            "bound": exact_bound(len(undone), len(found.undone)),
            "limit": found.limit,
        }
        refs = [
            deciding(
                episode,
                step,
                index,
                f"1 still, as at frame {episode.tracks[index].done_at}",
                f"{episode.tracks[index].after[step - episode.tracks[index].done_at - 1]:.4g}",
            )
            for episode, step in undone
        ]
        return self.failed(message, figures, index, refs)


def _followed(case: Case, subtask: int) -> float:
    """In how many episodes frames were judged after a sub-task got done: others cannot show that it lasts."""
    return float(sum(one.tracks[subtask].done and bool(one.tracks[subtask].after) for one in case.everything))


def _lasted(followed: Sequence[float]) -> str:
    """What episodes show of lasting; ``followed``: for each sub-task, how many of them go on after it got done."""
    if not any(followed):
        return "no episode goes on after what got done, so none shows whether it lasts"
    counts = (f"sub-task {index} in {count:.0f}" for index, count in enumerate(followed, 1))
    return f"what got done stays done, where episodes go on after it: {', '.join(counts)}"


class Acted(Protocol):
    """An episode with the actions that were taken in it."""

    @property
    def actions(self) -> NDArray[Any]:
        """``[T]`` or ``[T, A]``; the one at index t leads to frame t + 1."""


def usual_actions(episodes: Sequence[Acted]) -> frozenset[int]:
    """The commonest actions of a Discrete space, which make up ``USUAL`` of all in ``episodes``; none of another."""
    taken = Counter(int(action) for one in episodes if _discrete(one) for action in one.actions.tolist())
    usual: list[int] = []
    for action, _ in taken.most_common():
        if sum(taken[one] for one in usual) >= USUAL * taken.total():
            break
        usual.append(action)
    return frozenset(usual)


def _discrete(episode: Acted) -> bool:
    return episode.actions.ndim == 1 and episode.actions.dtype.kind in "iu"


def _first_below(track: Track) -> int:
    """The first frame after a sub-task was done at which it was not shown so; -1: there is none."""
    return next((track.done_at + 1 + at for at, value in enumerate(track.after) if value < DONE), -1)


def _undone(episode: Episode, subtask: int) -> int:
    """The frame at which a sub-task is undone while no other one gets done; -1: there is none."""
    step = _first_below(episode.tracks[subtask])
    return -1 if step in (track.first_at for track in episode.tracks) else step


def _moved_on(episode: Episode, subtask: int, usual: frozenset[int]) -> int:
    """The frame to which one of the ``usual`` actions led and undid a sub-task; -1: there is none."""
    step = _undone(episode, subtask)
    return step if step > 0 and _discrete(episode) and int(episode.actions[step - 1]) in usual else -1


def _by_its_expert(episode: Episode, subtask: int) -> int:
    """The frame to which the expert's own action led in half-trained play and undid a sub-task; -1: there is none."""
    step = _undone(episode, subtask)
    return step if step > 0 and not next(islice(strays(episode.seed), step - 1, None)) else -1
