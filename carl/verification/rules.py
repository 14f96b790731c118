"""The rules that every program is judged by unless others are given.

Recorded episodes judge a program; oracle events play no part. What is asked for begins with the paper (Code as Reward,
arXiv 2402.04764, section 3.3): all expert episodes complete the program, few random ones do. The rest is what let bad
programs pass: done too early, paid for nothing, misread, too weak to learn from.
"""

from carl.config import VerifyConfig
from carl.verification.rule import Evidence, Rule
from carl.verification.rules_done import AlreadyDone, DoneWithTask, ExpertsComplete, OnlySolved
from carl.verification.rules_lasting import Lasting
from carl.verification.rules_near import Degrees
from carl.verification.rules_paid import ForNothing, Needed, RandomCompletion
from carl.verification.rules_running import Abstains, Cost, Deterministic, Stable, StaticPolicy

PLAYED = (Evidence.RANDOMS, Evidence.RESTING, Evidence.MIXED, Evidence.CUT, Evidence.POLICY)
"""Kinds of episodes of which some do not solve the task."""

NEARING = (Evidence.EXPERTS, Evidence.MIXED, Evidence.CUT, Evidence.POLICY)
"""Kinds of episodes that come near to a sub-task and mostly get it done."""

PAID = (Evidence.RANDOMS, Evidence.RESTING, Evidence.POLICY)
"""Kinds of episodes that may be paid in part for what they never get done."""


def default_rules(config: VerifyConfig) -> tuple[Rule, ...]:
    """The rules in the order of their checks."""
    return (
        StaticPolicy(),
        Abstains(),
        Deterministic(),
        *([Stable()] if config.camera_varies else []),
        ExpertsComplete(),
        AlreadyDone(),
        DoneWithTask(config.max_early),
        Lasting(config.max_undone, config.max_undone_by_experts, config.idle),
        *(Degrees(kind) for kind in NEARING),
        RandomCompletion(config.max_random_completion, config.min_randoms),
        *(ForNothing(kind, config.max_part) for kind in PAID),
        *(OnlySolved(kind, config.unsolved(kind)) for kind in PLAYED),
        Needed(),
        Cost(config.max_frame_ms / 1000),
    )
