"""The checks: from what a program made of the episodes to verdicts that name figures and frames.

Expert and random episodes judge a program; oracle events play no part. What is asked for follows the paper (Code as
Reward, arXiv 2402.04764, section 3.3): all expert episodes complete the program, few random ones do.
"""

from collections.abc import Callable, Iterator, Sequence

from carl.config import VerifyConfig
from carl.program import RewardProgram
from carl.sandbox.policy import violations
from carl.sandbox.source import Violation
from carl.statistics import wilson_interval
from carl.verification.replay import Episode, Moment
from carl.verification.report import Check, FrameRef

FRAMES_SHOWN = 5
Episodes = Sequence[Episode]


def _named(program: RewardProgram, subtask: int) -> str:
    return f"sub-task {subtask + 1} ({program.subtasks[subtask].name!r})"


def _number(value: float) -> str:
    return f"{value:.4g}"


def static_policy(program: RewardProgram) -> list[Check]:
    """Every sub-task's source keeps to what programs may contain."""
    found = {index: violations(subtask.code) for index, subtask in enumerate(program.subtasks)}
    failed = [_refused(program, index, listed) for index, listed in found.items() if listed]
    return failed or [
        Check(
            name="static_policy",
            passed=True,
            message="the code contains nothing that is not allowed",
            figures={"violations": 0},
        )
    ]


def _refused(program: RewardProgram, subtask: int, listed: list[Violation]) -> Check:
    lines = "\n".join(f"- {violation}" for violation in listed)
    return Check(
        name="static_policy",
        passed=False,
        message=f"the code of {_named(program, subtask)} is not allowed:\n{lines}",
        subtask=subtask,
        figures={"violations": len(listed)},
    )


def abstains(program: RewardProgram, episodes: Episodes) -> list[Check]:
    """Every frame that is looked at gets an answer."""
    return _by_moment(
        program,
        episodes,
        name="abstains",
        moments=lambda episode: episode.abstains,
        looked_at=lambda episode: episode.judged,
        expected="a number in [0, 1]",
        complaint="gave no number in [0, 1]",
        praise="every frame got a number in [0, 1]",
    )


def deterministic(program: RewardProgram, episodes: Episodes) -> list[Check]:
    """A second run, in another process and order, gives the same numbers to the last bit."""
    return _by_moment(
        program,
        episodes,
        name="deterministic",
        moments=lambda episode: episode.differing,
        looked_at=lambda episode: episode.repeated,
        expected="the same number in every run",
        complaint="gave different numbers for the same two frames",
        praise="a second run gave the same numbers",
    )


def _by_moment(
    program: RewardProgram,
    episodes: Episodes,
    name: str,
    moments: Callable[[Episode], tuple[Moment, ...]],
    looked_at: Callable[[Episode], int],
    expected: str,
    complaint: str,
    praise: str,
) -> list[Check]:
    """A check that fails for every sub-task with at least one such moment."""
    judged = sum(looked_at(episode) for episode in episodes)
    failed = []
    for index in range(len(program.subtasks)):
        found = [(episode, moment) for episode in episodes for moment in moments(episode) if moment.subtask == index]
        if found:
            message = f"{_named(program, index)} {complaint}, at {len(found)} of {judged} frames"
            refs = [_ref(episode, moment.step, index, expected, moment.note) for episode, moment in found]
            failed.append(_failed(name, message, index, {"frames": judged, name: len(found)}, refs))
    figures: dict[str, float] = {"frames": judged, name: 0}
    return failed or [Check(name=name, passed=True, message=praise, figures={**figures})]


def _ref(episode: Episode, step: int, subtask: int | None, expected: str, got: str) -> FrameRef:
    return FrameRef(source=episode.source, seed=episode.seed, step=step, subtask=subtask, expected=expected, got=got)


def _failed(name: str, message: str, subtask: int | None, figures: dict[str, float], refs: Sequence[FrameRef]) -> Check:
    return Check(
        name=name,
        passed=False,
        message=message,
        subtask=subtask,
        figures={**figures},
        frames=tuple(refs[:FRAMES_SHOWN]),
    )


def experts_complete(program: RewardProgram, experts: Episodes) -> list[Check]:
    """Every expert episode completes every sub-task in order (the paper's 100 %)."""
    completed = sum(episode.completed for episode in experts)
    figures: dict[str, float] = {"completed": completed, "episodes": len(experts)}
    if not experts:
        return [
            _failed("experts_complete", "there are no expert episodes to judge by; collect some", None, figures, [])
        ]
    failed = []
    for index in range(len(program.subtasks)):
        stuck = [episode for episode in experts if _stuck_at(episode) == index]
        if stuck:
            message = (
                f"{_named(program, index)} never gets done in {len(stuck)} of {len(experts)} expert episodes, "
                "where the task is solved by the last frame"
            )
            refs = [_stuck_ref(episode, index) for episode in stuck]
            failed.append(_failed("experts_complete", message, index, figures | {"stuck": len(stuck)}, refs))
    praise = f"all {len(experts)} expert episodes complete every sub-task"
    return failed or [Check(name="experts_complete", passed=True, message=praise, figures={**figures})]


def _stuck_at(episode: Episode) -> int | None:
    """The first sub-task that is not done."""
    return next((index for index, step in enumerate(episode.done_at) if step < 0), None)


def _stuck_ref(episode: Episode, subtask: int) -> FrameRef:
    best, at = episode.best[subtask], episode.best_at[subtask]
    got = f"at best {_number(best)}" + (f", at frame {at}" if best > 0 else " throughout")
    return _ref(episode, episode.steps, subtask, "progress 1 by this last frame", got)


def not_already_done(program: RewardProgram, experts: Episodes, randoms: Episodes = ()) -> list[Check]:
    """No sub-task is done at the frame where it becomes active.

    On expert episodes that holds for all sub-tasks. On random ones it holds for those that are active in the initial
    frame: random play may well do a later step before its turn (the second object first, say), which is no fault of
    the program that sees it.
    """
    failed = []
    for index in range(len(program.subtasks)):
        found = [*_already_done(experts, index), *(one for one in _already_done(randoms, index) if one[1] == 0)]
        if found:
            message = (
                f"{_named(program, index)} is already done at the frame where it becomes active, in {len(found)} of "
                f"{len(experts) + len(randoms)} episodes; it has to be below 1 there, and 1 only once it is achieved"
            )
            refs = [_ref(episode, step, index, _turn(step, index), "1") for episode, step in found]
            counts: dict[str, float] = {"already_done": len(found), "episodes": len(experts) + len(randoms)}
            failed.append(_failed("already_done", message, index, counts, refs))
    return failed or [
        Check(
            name="already_done",
            passed=True,
            message="no sub-task is done at the frame where it becomes active",
            figures={"already_done": 0, "episodes": len(experts) + len(randoms)},
        )
    ]


def _already_done(episodes: Episodes, subtask: int) -> Iterator[tuple[Episode, int]]:
    for episode in episodes:
        step = episode.active_at[subtask]
        if step >= 0 and step == episode.done_at[subtask]:
            yield episode, step


def _turn(step: int, subtask: int) -> str:
    return "below 1 in the initial frame" if step == 0 else f"below 1 where sub-task {subtask} was just done"


def random_completion(program: RewardProgram, randoms: Episodes, config: VerifyConfig) -> list[Check]:
    """At most ``max_random_completion`` of at least ``min_randoms`` random episodes complete every sub-task."""
    done = [episode for episode in randoms if episode.completed]
    share = len(done) / len(randoms) if randoms else 0.0
    enough = len(randoms) >= config.min_randoms
    passed = enough and share <= config.max_random_completion
    subtasks = range(len(program.subtasks))
    message = f"{len(done)} of {len(randoms)} episodes of random play complete every sub-task"
    if not enough:
        message += f"; {config.min_randoms} episodes are needed to judge by: collect more"
    else:
        message += f"; at most {config.max_random_completion:.0%} may"
        message += "" if passed else ", so the sub-tasks together are too easily fulfilled"
    refs = [_ref(episode, max(episode.done_at), None, "not all sub-tasks done", "all done") for episode in done]
    return [
        Check(
            name="random_completion",
            passed=passed,
            message=message,
            figures={
                "share": share,
                "interval": list(wilson_interval(len(done), len(randoms))),
                "limit": config.max_random_completion,
                "episodes": len(randoms),
                "solved": sum(episode.solved for episode in randoms),
                "done_per_subtask": [float(sum(one.done_at[index] >= 0 for one in randoms)) for index in subtasks],
            },
            frames=() if passed else tuple(refs[:FRAMES_SHOWN]),
        )
    ]
