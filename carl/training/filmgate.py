"""The gate's rules on films of a policy, beside the episodes that the run recorded."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from carl.config import VerifyConfig
from carl.episodes.trajectory import Trajectory
from carl.program import RewardProgram
from carl.sandbox.box import Box, Limits
from carl.verification.episode import Episode
from carl.verification.gate import batches
from carl.verification.replay import AFTER, Replay
from carl.verification.report import Check
from carl.verification.rule import Case, Evidence, Rule
from carl.verification.rules import default_rules

BESIDE = (Evidence.EXPERTS, Evidence.MIXED)
"""Kinds of recorded episodes that rules compare a policy's with: experts say what is usual and what lasts, and both
together whether partial progress tells who is nearer."""

COMPARED = 20
"""Recorded episodes of a kind that a program is shown: so many experts make some hundred pairs to compare."""

Recorded = Mapping[Evidence, Iterable[Trajectory]]


class FilmGate:
    """The gate's rules on films of a policy.

    A program is shown ``recorded`` episodes of the kinds in ``BESIDE`` once. What rules find wrong in those alone
    is no news: they were asked when the program was verified.
    """

    def __init__(self, recorded: Recorded, verify: VerifyConfig) -> None:
        self._recorded = {kind: recorded[kind] for kind in BESIDE if kind in recorded}
        self._rules = [rule for rule in default_rules(verify) if rule.needs]
        self._limits = Limits(deadline_s=verify.deadline_s, memory_mb=verify.memory_mb)
        self._before: Case | None = None
        self._known: frozenset[str] = frozenset()

    def judge(self, program: RewardProgram, film: Sequence[Trajectory], own: Sequence[Rule]) -> list[Check]:
        """The checks of ``own``, rules on a policy's episodes, and of those of the gate's that look at a film.

        Raises BoxError if no process can be started, and StoreError for recorded episodes that cannot be read.
        """
        with Box(program, self._limits) as box:
            before = self._shown_before(program, box)
            found = _shown(box, program, Evidence.POLICY, film)
        case = Case(program, {**before.episodes, **({Evidence.POLICY: found} if found else {})})
        news = (check for check in _judged(self._rules, case) if self._is_news(check))
        return [*_judged(own, case), *news]

    def _shown_before(self, program: RewardProgram, box: Box) -> Case:
        """What ``program`` made of the recorded episodes, which it is shown in ``box`` unless it was before."""
        if self._before is None or self._before.program != program:
            some = {kind: islice(played, COMPARED) for kind, played in self._recorded.items()}
            shown = {kind: _shown(box, program, kind, played) for kind, played in some.items()}
            self._before = Case(program, shown)
            self._known = frozenset(check.name for check in _judged(self._rules, self._before) if not check.passed)
        return self._before

    def _is_news(self, check: Check) -> bool:
        return check.name in self._of_films or (not check.passed and check.name not in self._known)

    @property
    def _of_films(self) -> set[str]:
        return {rule.name for rule in self._rules if Evidence.POLICY in rule.needs}


def _judged(rules: Iterable[Rule], case: Case) -> list[Check]:
    """The checks of those rules whose evidence is there."""
    return [check for rule in rules if rule.needs <= case.episodes.keys() for check in rule.judge(case)]


def _shown(box: Box, program: RewardProgram, kind: Evidence, played: Iterable[Trajectory]) -> list[Episode]:
    """What ``program``, which runs in ``box``, makes of episodes of one kind."""
    episodes: list[Episode] = []
    for batch in batches(played):
        replay = Replay(program, batch, None if kind.solved else AFTER)
        replay.run([box])
        episodes += replay.episodes()
    return episodes
