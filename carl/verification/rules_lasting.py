"""The rule about events: what got done has happened, and was not about to happen."""

from collections import Counter
from collections.abc import Sequence

from carl.program import DONE
from carl.statistics import exact_bound
from carl.verification.episode import Episode, Track
from carl.verification.report import Check, Figure
from carl.verification.rule import Case, Evidence, Rule, deciding

USUAL = 2 / 3
"""The actions that experts take most, up to this share of all, are those that move the agent. In MiniGrid they walk and
turn, and neither undoes an event; what does (drop, toggle) they take once in an episode."""


class Lasting(Rule):
    """A sub-task that got done stays so: what is undone by moving on was about to happen, and had not happened.

    On expert episodes a sub-task may be undone only by another one's getting done, as a key is dropped: of at most
    ``limit`` (a share) of the episodes not. In other play real events are undone as well (a door is closed again), but
    not in the next ``AFTER`` frames by the actions that experts take most, which move the agent.

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
        others = [one for kind, played in case.episodes.items() if kind is not Evidence.EXPERTS for one in played]
        failed, shares, bounds = [], [], []
        followed = [_followed(case, index) for index in range(len(case.program.subtasks))]
        for index in range(len(case.program.subtasks)):
            by_experts = [(one, _undone(one, index)) for one in case.experts if one.tracks[index].done]
            by_others = [(one, _moved_on(one, index, usual)) for one in others if one.tracks[index].done]
            for played, who, limit in (
                (by_experts, "expert episodes", self._by_experts),
                (by_others, "other episodes, by moving on", self._limit),
            ):
                undone = [(episode, step) for episode, step in played if step >= 0]
                shares.append(len(undone) / len(played) if played else 0.0)
                bounds.append(exact_bound(len(undone), len(played)))
                if len(undone) > limit * len(played):
                    failed.append(self._refused(case, index, undone, len(played), (who, limit)))
                    break
        figures: dict[str, Figure] = {"limit": self._limit, "limit_experts": self._by_experts}
        figures |= {"undone": shares, "bounds": bounds, "followed": followed}
        return failed or [self.passed(_lasted(followed), figures)]

    def _refused(
        self,
        case: Case,
        index: int,
        undone: Sequence[tuple[Episode, int]],
        total: int,
        by: tuple[str, float],
    ) -> Check:
        who, limit = by
        message = (
            f"rewarded too early: {case.named(index)} is undone again in {len(undone)} of {total} {who}, so either "
            "it had not happened yet, or the later frame is misread. Show 1 for what has changed and stays so, not for "
            "where the agent is"
        )
        figures: dict[str, Figure] = {
            "undone": len(undone),
            "episodes": total,
            "bound": exact_bound(len(undone), total),
            "limit": limit,
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


def usual_actions(episodes: Sequence[Episode]) -> frozenset[int]:
    """The commonest actions of a Discrete space, which make up ``USUAL`` of all in ``episodes``; none of another."""
    taken = Counter(int(action) for one in episodes if _discrete(one) for action in one.actions.tolist())
    usual: list[int] = []
    for action, _ in taken.most_common():
        if sum(taken[one] for one in usual) >= USUAL * taken.total():
            break
        usual.append(action)
    return frozenset(usual)


def _discrete(episode: Episode) -> bool:
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
