"""Whether episodes can judge a program at all: looked at before any program is, and blamed instead of one.

Frames are compared by their digests (``Trajectory.digests``): noise in a camera hides a contradiction and makes none.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from statistics import median
from typing import NamedTuple

import numpy as np

from carl.config import VerifyConfig
from carl.episodes.trajectory import Trajectory
from carl.statistics import exact_bound, left_open, trials_to_exclude
from carl.verification.report import Check, Figure, FrameRef
from carl.verification.rule import FRAMES_SHOWN, Evidence
from carl.verification.seen import COLOURS, Seen, named

NAME = "sound_evidence"
"""Of the check."""

STRANGE = 0.05
"""An expert's last frame is of another task if at most this share of its pixels has a colour that occurs in its own
initial frame, or in the initial or last frame of another expert."""

CHANCE = 0.001
"""Experts are of another task if some colour tells their initial frames from those of random play, and if one would in
less than this share of draws of both from the same task."""

ONE_START = trials_to_exclude(0.05)
"""If so many episodes of random play begin alike, no expert of the task begins otherwise."""


class Finding(NamedTuple):
    """One thing that is wrong with the episodes: which they are and what to do, and the frames that decided."""

    message: str
    frames: Sequence[FrameRef]


@dataclass
class Soundness:
    """What the episodes that were looked at so far are good for.

    Args:
        fewest: expert episodes without which nothing is certified.
        contradicted: largest share of solved episodes that may end in a frame in which the task goes on unsolved; it is
            exceeded where the lower bound of the share is.
    """

    fewest: int
    contradicted: float
    _seen: list[Seen] = field(default_factory=list)
    _whole: set[Evidence] = field(default_factory=set)

    @classmethod
    def of(cls, config: VerifyConfig) -> "Soundness":
        """With the limits of ``config``, before any episode."""
        return cls(config.min_experts, config.max_contradicted)

    def add(self, kind: Evidence, trajectories: Iterable[Trajectory]) -> None:
        """Look at some episodes of a kind; raises StoreError for frames that cannot be read."""
        self._seen += [Seen.of(kind, trajectory) for trajectory in trajectories]

    def close(self, kind: Evidence) -> None:
        """There are no more episodes of the kind than were looked at."""
        self._whole.add(kind)

    @property
    def step_seconds(self) -> float | None:
        """What a step of the environment takes with its picture: the median over the episodes; None: not measured."""
        measured = [one.step_seconds for one in self._seen if one.step_seconds is not None]
        return median(measured) if measured else None

    @property
    def one_size(self) -> bool:
        """Whether all frames have the same size, without which a program cannot be shown them."""
        return not any(_sizes(self._seen))

    def judge(self) -> list[Check]:
        """A check that passed and says what the episodes leave open, or one for each thing that is wrong with them.

        The ``bound`` is of the share of solved ends that are contradicted, where that is judged; ``excluded`` is what
        so many experts leave open.

        Contradictions follow from the rest, and are looked for where nothing else is wrong.
        """
        experts = [one for one in self._seen if one.kind is Evidence.EXPERTS]
        contradictions = Contradictions.among(self._seen)
        told = contradictions.finding(self.contradicted)
        found = [*self._too_few(experts), *_failed(experts), *_sizes(self._seen), *_strange(experts), *_alike(experts)]
        found = found or [*_elsewhere(experts, [one for one in self._seen if one.kind is Evidence.RANDOMS])]
        figures: dict[str, Figure] = {
            "experts": len(experts),
            "distinct": len({one.film for one in experts}),
            "excluded": exact_bound(0, len(experts)),
            "contradicted": contradictions.share,
            "at_least": contradictions.at_least,
            "comparable": len(contradictions.solved),
            "limit": self.contradicted,
        }
        if not found and contradictions.solved:
            figures["bound"] = exact_bound(len(contradictions.against), len(contradictions.solved))
        if told and not found and contradictions.at_least > self.contradicted:
            found.append(told)
        counts = Counter(one.kind.value for one in self._seen)
        if found:
            return [_check(False, finding, figures) for finding in found]
        tolerated = f"; this is tolerated: {told.message}" if told else ""
        passed = Finding(
            f"the episodes can judge a program; {left_open(counts)}{tolerated}", told.frames if told else ()
        )
        return [_check(True, passed, figures)]

    def _too_few(self, experts: Sequence[Seen]) -> Iterator[Finding]:
        if Evidence.EXPERTS in self._whole and len(experts) < self.fewest:
            message = (
                f"there are {len(experts)} expert episodes, and nothing is certified with fewer than {self.fewest} "
                "(verify.min_experts): collect some more (collect.experts), or record more demonstrations"
            )
            yield Finding(message, ())


def sound(episodes: Mapping[Evidence, Iterable[Trajectory]], config: VerifyConfig) -> list[Check]:
    """What ``Soundness`` makes of all ``episodes``, before there is any program; raises StoreError."""
    soundness = Soundness.of(config)
    for kind, trajectories in episodes.items():
        soundness.add(kind, trajectories)
        soundness.close(kind)
    return soundness.judge()


def _check(passed: bool, finding: Finding, figures: Mapping[str, Figure]) -> Check:
    frames = tuple(finding.frames[:FRAMES_SHOWN])
    return Check(name=NAME, passed=passed, message=finding.message, figures={**figures}, frames=frames)


def _failed(experts: Sequence[Seen]) -> Iterator[Finding]:
    if failed := [one for one in experts if not one.solved]:
        message = (
            f"the expert fails in {len(failed)} of {len(experts)} episodes, {_seeds(failed)}, and a program that is "
            "right would be rejected for it: leave them out, or mend the expert, or what the task calls success"
        )
        yield Finding(message, [one.last("the task solved by the last frame", "not solved") for one in failed])


def _sizes(episodes: Sequence[Seen]) -> Iterator[Finding]:
    counts = Counter(one.size for one in episodes)
    usual = counts.most_common(1)[0][0] if counts else ()
    if other := [one for one in episodes if one.size != usual]:
        message = (
            f"frames of several sizes cannot be judged together: those of {len(other)} of {len(episodes)} episodes, "
            f"{_seeds(other)}, are {list(other[0].size)} and not {list(usual)}, of another task or camera; "
            "record them anew"
        )
        yield Finding(message, [one.frame(0, f"a frame of {list(usual)}", f"{list(one.size)}") for one in other])


def _strange(experts: Sequence[Seen]) -> Iterator[Finding]:
    shown = [(one, one.colours) for one in experts if one.colours]
    counts = np.zeros(COLOURS, dtype=np.intp)
    for _, colours in shown:
        counts[np.union1d(*colours)] += 1
    if len(shown) < 3:
        return
    shares = [(one, np.mean(np.isin(last, initial) | (counts[last] > 1))) for one, (initial, last) in shown]
    if strange := [one for one, share in shares if share <= STRANGE]:
        message = (
            f"the last frame of {len(strange)} of {len(experts)} expert episodes, {_seeds(strange)}, has no colour in "
            "common with its initial frame or with other experts' frames: it is of another task; record "
            "the episode anew"
        )
        yield Finding(message, [one.last("a frame of the same task", "other colours") for one in strange])


def _elsewhere(experts: Sequence[Seen], randoms: Sequence[Seen]) -> Iterator[Finding]:
    """Experts none of which begins as the task does.

    Of two samples from one distribution, the values of a colour are all above, or all below, the other sample's with a
    chance of at most 2 / (n + m choose n). Episodes of one seed count once.
    """
    starts = {one.initial for one in randoms}
    if not experts or not randoms or starts & {one.initial for one in experts}:
        return
    ours, theirs = (np.array([one.begins for one in several]) for several in (experts, randoms))
    seeds = [len({one.seed for one in several}) for several in (experts, randoms)]
    more, less = ours.min(axis=0) > theirs.max(axis=0), ours.max(axis=0) < theirs.min(axis=0)
    colours = int((ours.any(axis=0) | theirs.any(axis=0)).sum())
    # an int by an int: as a float the number of draws of a thousand episodes is infinite
    telling = np.flatnonzero((more | less) & (2 * colours / comb(sum(seeds), seeds[0]) <= CHANCE))
    if telling.size:
        one, other = ours[:, telling].mean(axis=0), theirs[:, telling].mean(axis=0)
        colour = int(telling[np.argmax(np.abs(one - other) / (one + other))])
        why = f"each shows {'more' if more[colour] else 'less'} of the colour {named(colour)} than any of those"
    elif len(starts) == 1 and seeds[1] >= ONE_START:
        why = "those are all alike"
    else:
        return
    message = (
        f"the initial frames of the {len(experts)} expert episodes and of the {len(randoms)} of random play have "
        f"nothing in common, {why}: the experts are of another task, or of another camera; record demonstrations of "
        "this one (carl record), or correct what its `demonstrations` names"
    )
    frames = [one.frame(0, "an initial frame of the task", "another") for one in experts]
    yield Finding(message, frames)


def _alike(experts: Sequence[Seen]) -> Iterator[Finding]:
    if alike := [one for one in experts if one.solved and len(one.starts) == 1]:
        message = (
            f"all frames are alike in {len(alike)} of {len(experts)} expert episodes, {_seeds(alike)}: success cannot "
            "be seen in a frame; point the task's camera at what changes"
        )
        yield Finding(message, [one.last("a change on the way to success", "none") for one in alike])


def _seeds(episodes: Sequence[Seen]) -> str:
    seeds = list(dict.fromkeys(one.seed for one in episodes))
    listed = ", ".join(map(str, seeds[:FRAMES_SHOWN]))
    return f"of seed{'s' if len(seeds) > 1 else ''} {listed}{', ...' if len(seeds) > FRAMES_SHOWN else ''}"


@dataclass(frozen=True)
class Contradictions:
    """Episodes that end solved in a frame in which the task goes on unsolved elsewhere, after the same initial frame.

    A frame contradicts another only where it is shown for at least as many steps: a program may ask to be shown a
    sub-task done for several frames in a row.

    Attributes:
        solved: episodes that were solved, and share their initial frame with another: those that can be contradicted.
        against: those of them that are.
        unsolved: where the last frame of those is shown unsolved, by its key.
    """

    solved: Sequence[Seen]
    against: Sequence[Seen]
    unsolved: Mapping[int, FrameRef]

    @classmethod
    def among(cls, episodes: Sequence[Seen]) -> "Contradictions":
        """Those among ``episodes`` of one task."""
        initials = Counter(one.initial for one in episodes)
        common = [one for one in episodes if initials[one.initial] > 1]
        solved = [one for one in common if one.solved]
        ends: dict[int, int] = {}
        for one in solved:
            key, length = int(one.keys[-1]), int(one.lengths[-1])
            ends[key] = min(length, ends.get(key, length))
        unsolved = {key: frame for one in common for key, frame in _unsolved(one, ends)}
        return cls(solved, [one for one in solved if int(one.keys[-1]) in unsolved], unsolved)

    @property
    def share(self) -> float:
        """Of ``solved`` that are contradicted; 0 if none can be."""
        return len(self.against) / len(self.solved) if self.solved else 0.0

    @property
    def at_least(self) -> float:
        """The lower exact bound of that share at 95 %: a few may be due to pixels too coarse for a threshold."""
        trials = len(self.solved)
        return 1 - exact_bound(trials - len(self.against), trials) if trials else 0.0

    def finding(self, limit: float) -> Finding | None:
        """Them in words; None if there are none."""
        if not self.against:
            return None
        pairs = [
            (one.last("a frame that only a solved task shows", "solved"), self.unsolved[int(one.keys[-1])])
            for one in self.against
        ]
        message = (
            f"success cannot be seen in a frame: {len(self.against)} of {len(self.solved)} solved episodes whose "
            f"initial frame others share, {_seeds(self.against)}, end in a frame in which the task goes on unsolved "
            f"elsewhere; at most the share {limit:g} may (verify.max_contradicted), so have the task's camera show "
            "what decides"
        )
        return Finding(message, [frame for pair in pairs for frame in pair])


def _unsolved(one: Seen, ends: Mapping[int, int]) -> Iterator[tuple[int, FrameRef]]:
    """Where an episode shows one of the last frames ``ends``, for as many steps, unsolved."""
    known = np.fromiter(ends, np.uint64, len(ends))
    for run in np.flatnonzero(np.isin(one.keys, known)).tolist():
        key, ended = int(one.keys[run]), one.solved and run == len(one.keys) - 1
        if not ended and one.lengths[run] >= ends[key]:
            yield key, one.frame(run, "a frame that only a solved task shows", "not solved")
