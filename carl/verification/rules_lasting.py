"""The rule about events: what got done has happened, and was not about to happen."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from carl.episodes.kinds import rare_actions, strays
from carl.program import DONE
from carl.statistics import exact_bound
from carl.verification.episode import Episode, Track
from carl.verification.report import Check, Figure
from carl.verification.rule import Case, Evidence, Rule, deciding

USUAL = 2 / 3
"""The actions that experts take most, up to this share of all, are those that move the agent, but for those that make
events (``rare_actions``). In MiniGrid they walk and turn, and neither undoes an event; what does (drop, toggle) they
take a few times in an episode, which in a small room is as often as they turn."""


class _Played(NamedTuple):
    """Episodes in which a sub-task got done.

    Attributes:
        whose: they are, and by whose action it may have been undone.
        episodes: these.
        tells: whether what the step to a frame undoes was about to happen, and had not happened.
        limit: the share of them that may undo it.
        allowed: how many may, whatever the limit.
    """

    whose: str
    episodes: Sequence[Episode]
    tells: Callable[[Episode, int], bool]
    limit: float
    allowed: int = 0

    def undone(self, subtask: int) -> list[tuple[Episode, int]]:
        """The episodes that undid it so, each with the frame at which it was undone."""
        found = ((one, _undone(one, subtask)) for one in self.episodes)
        return [(one, step) for one, step in found if step > 0 and self.tells(one, step)]

    def tell(self, subtask: int) -> list[Episode]:
        """The episodes that could have undone it so."""
        return [one for one in self.episodes if any(self.tells(one, step) for step in _after(one, subtask))]


class Lasting(Rule):
    """A sub-task that got done stays so: what is undone by moving on was about to happen, and had not happened.

    On expert episodes a sub-task may be undone only by another one's getting done, as a key is dropped: of at most
    ``limit`` (a share) of the episodes not. In other play real events are undone as well (a door is closed again), but
    not in the next ``AFTER`` frames by the actions that experts take most, which move the agent, nor by those that the
    task calls idle.

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

    def __init__(self, limit: float, by_experts: float | None = None, idle: Iterable[int] = ()) -> None:
        """``by_experts`` is the limit in expert episodes; None: the same. ``idle`` is as in Task."""
        self._limit, self._by_experts, self._idle = limit, limit if by_experts is None else by_experts, frozenset(idle)

    def judge(self, case: Case) -> list[Check]:
        """One failed check for every sub-task that does not last."""
        moving = usual_actions(case.experts) | self._idle
        failed, shares, bounds, followed = [], [], [], []
        for index in range(len(case.program.subtasks)):
            played = [*self._played(case, index, moving)]
            followed.append(float(len({id(one) for each in played for one in each.tell(index)})))
            for each in played:
                undone, total = each.undone(index), len(each.episodes)
                shares.append(len(undone) / total if total else 0.0)
                bounds.append(exact_bound(len(undone), total))
                if len(undone) > max(each.allowed, each.limit * total):
                    failed.append(self._refused(case, index, each, undone))
                    break
        figures: dict[str, Figure] = {"limit": self._limit, "limit_experts": self._by_experts}
        figures |= {"undone": shares, "bounds": bounds, "followed": followed}
        return failed or [self.passed(_lasted(followed), figures)]

    def _played(self, case: Case, index: int, moving: frozenset[int]) -> Iterator[_Played]:
        """Who might have undone a sub-task: experts, others by moving on, and the expert in half-trained play."""
        others = [one for kind, played in case.episodes.items() if kind is not Evidence.EXPERTS for one in played]
        experts, others, led_astray = (
            [one for one in played if one.tracks[index].done]
            for played in (case.experts, others, case.episodes.get(Evidence.MIXED, ()))
        )
        yield _Played("expert episodes", experts, lambda *_: True, self._by_experts)
        moved = partial(_moved, moving=moving)
        yield _Played("other episodes, by moving on", others, moved, self._limit)
        whose = "half-trained episodes, by the expert in them"
        yield _Played(whose, led_astray, _by_its_expert, self._by_experts, allowed=1)

    def _refused(self, case: Case, index: int, played: _Played, undone: Sequence[tuple[Episode, int]]) -> Check:
        message = (
            f"rewarded too early: {case.named(index)} is undone again in {len(undone)} of {len(played.episodes)} "
            f"{played.whose}, so either it had not happened yet, or the later frame is misread. Show 1 for what has "
            "changed and stays so, not for where the agent is, or add the sub-task that has to come first"
        )
        figures: dict[str, Figure] = {
            "undone": len(undone),
            "episodes": len(played.episodes),
            "bound": exact_bound(len(undone), len(played.episodes)),
            "limit": played.limit,
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


def _lasted(followed: Sequence[float]) -> str:
    """What episodes show of lasting; ``followed``: for each sub-task, how many of them could have undone it."""
    if not any(followed):
        return "no episode goes on after what got done in a way that could undo it, so none shows whether it lasts"
    counts = (f"sub-task {index} in {count:.0f}" for index, count in enumerate(followed, 1))
    return f"what got done stays done, where episodes go on after it: {', '.join(counts)}"


class Acted(Protocol):
    """An episode with the actions that were taken in it."""

    @property
    def actions(self) -> NDArray[Any]:
        """``[T]`` or ``[T, A]``; the one at index t leads to frame t + 1."""


def usual_actions(episodes: Sequence[Acted]) -> frozenset[int]:
    """The commonest actions of a Discrete space that make no events, up to ``USUAL`` of all in ``episodes``; none of
    another."""
    discrete = [one.actions for one in episodes if _discrete(one)]
    taken, rare = Counter(int(action) for one in discrete for action in one.tolist()), rare_actions(discrete)
    usual: list[int] = []
    for action, _ in taken.most_common():
        if sum(taken[one] for one in usual) >= USUAL * taken.total():
            break
        usual += [action] * (action not in rare)
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


def _after(episode: Episode, subtask: int) -> range:
    """The frames that were judged after a sub-task got done."""
    track = episode.tracks[subtask]
    return range(track.done_at + 1, track.done_at + 1 + len(track.after))


def _moved(episode: Episode, step: int, moving: frozenset[int]) -> bool:
    """Whether one of the actions ``moving`` led to the frame at ``step``."""
    return _discrete(episode) and int(episode.actions[step - 1]) in moving


def _by_its_expert(episode: Episode, step: int) -> bool:
    """Whether the expert's own action led to the frame at ``step`` of half-trained play."""
    return not next(islice(strays(episode.seed), step - 1, None))
