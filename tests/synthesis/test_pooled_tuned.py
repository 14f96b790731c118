"""What needs no request: the best functions of all samples together, and other numbers in a function that failed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from carl.config import VerifyConfig
from carl.program import DONE, RewardProgram, SubTask
from carl.synthesis.damped import damped
from carl.synthesis.numbers import numbers, replaced
from carl.synthesis.pooled import Pooled
from carl.synthesis.search import Found, HeldOutGate, SearchGate, search
from carl.synthesis.tried import Budget, BudgetSpentError, Candidate, Proposal, Proposer, Tried
from carl.synthesis.tuned import Tuned
from carl.verification import verify
from carl.verification.sample import Sample
from tests.verification.episodes import KEY_GONE, REACH_GOAL, experts, kinds, randoms

EPISODES = kinds(experts(), randoms(20))
CONFIG = VerifyConfig(min_experts=2, min_randoms=20, max_random_completion=0.5)
NEVER = "def progress(frame, initial):\n    return 0.0\n"
AT_GOAL = """
import numpy as np

def progress(frame, initial):
    columns = np.nonzero((frame[..., 0] > 200).any(axis=0))[0]
    return 1.0 if columns[0] >= {} else 0.0
"""


REACHED = AT_GOAL.format(20)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return Sample(EPISODES)


def judge(program: RewardProgram, number: int = 0):
    return verify(program, EPISODES, CONFIG)


def of(**codes: str) -> RewardProgram:
    return RewardProgram(subtasks=tuple(SubTask(name=name, code=code) for name, code in codes.items()))


@dataclass
class Model:
    """Writes these programs, and counts how often it was about to ask."""

    programs: tuple[RewardProgram, ...]
    name = "model"
    exhausted = "the model has nothing more to say"
    asked = 0

    def propose(self, tried: Tried) -> Iterator[Proposal | None]:
        for program in self.programs:
            yield None
            tried.spend()
            self.asked += 1
            yield Proposal(program)


def found(*proposers: Proposer, calls: int = 9) -> Found:
    return search(proposers, SearchGate(judge, HeldOutGate(judge)), Budget(calls=calls))


def test_functions_of_different_plans_pass_together_where_no_single_sample_did(sample: Sample) -> None:
    """The key of one plan is right and the goal of another, whose steps are named alike, in another case."""
    model = Model((of(key=KEY_GONE, goal=NEVER), of(Key=NEVER, look=NEVER, GOAL=REACHED), of(key=NEVER, goal=NEVER)))
    result = found(Pooled(lambda: sample), model)
    assert result.program is not None
    assert [each.code for each in result.program.subtasks] == [KEY_GONE, REACHED]
    assert result.candidates[-1].proposer == "pool"
    assert model.asked == 2, "before the third request"


def test_a_function_that_was_written_and_never_tried_is_pooled(sample: Sample) -> None:
    tried = Tried(Budget(calls=0))
    program = of(key=NEVER, goal=REACHED)
    tried.add(Proposal(program), judge(program))
    tried.offer(SubTask(name="Key", code=KEY_GONE))
    pool = Pooled(lambda: sample)
    first, *_ = [proposal.program for proposal in pool.propose(tried) if proposal]
    assert [(each.name, each.code) for each in first.subtasks] == [("key", KEY_GONE), ("goal", REACHED)]
    assert [*pool.propose(tried)] == [], "nothing new was written since"


def test_what_pays_too_much_for_coming_near_pays_less_without_a_request(sample: Sample) -> None:
    model = Model((of(key=KEY_GONE, goal=REACH_GOAL), of(key=NEVER)))
    refused = judge(model.programs[0]).failed
    assert [check.name for check in refused] == ["for_nothing_random"]
    assert refused[0].figures["share"] > refused[0].figures["limit"] == 0.02
    result = found(Tuned(lambda: sample), model)
    assert result.program is not None
    assert (model.asked, result.candidates[-1].proposer) == (1, "tune")
    (check,) = (check for check in judge(result.program).checks if check.name == "for_nothing_random")
    assert 0 < check.figures["share"] < 0.02
    assert result.program.subtasks[0].code == KEY_GONE, "what pays nothing in part stays as it is"


def test_what_is_paid_less_again_and_again_is_done_where_it_was() -> None:
    report = judge(of(key=KEY_GONE, goal=REACH_GOAL))
    program = of(key=KEY_GONE, goal="def progress(frame, initial):\n    return frame\n")
    for _ in range(5):
        less = damped(Candidate(1, program, report))
        assert less is not None
        program = less
    names: dict[str, Any] = {}
    exec(program.subtasks[1].code, names)
    assert [names["progress"](shown, None) for shown in (DONE, 1.0)] == [DONE, 1.0]
    assert 0 < names["progress"](0.99, None) < 0.02


def test_a_number_that_was_wrong_in_every_sample_is_found(sample: Sample) -> None:
    """The goal's column is 20; no sample ever calls it reached."""
    model = Model(tuple(of(key=KEY_GONE, goal=AT_GOAL.format(column)) for column in (31, 40, 26)))
    result = found(Pooled(lambda: sample), Tuned(lambda: sample), model)
    assert result.program is not None
    assert result.candidates[-1].proposer == "tune"
    high, bound = (number.value for number in numbers(result.program.subtasks[1].code))
    assert high == 200, "nothing is better than what was written"
    assert 18 < bound <= 20
    assert model.asked == 1


def test_tuning_gives_the_same_numbers_again_and_not_for_the_same_function_twice(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carl.synthesis.tuned.EVALUATIONS", 8)
    tried = Tried(Budget(calls=0))
    for column in (40, 41):
        program = of(key=KEY_GONE, goal=AT_GOAL.format(column))
        tried.add(Proposal(program), judge(program))
    tuner = Tuned(lambda: sample)
    first = [proposal.program for proposal in tuner.propose(tried) if proposal]
    assert len(first) == 1
    assert [*tuner.propose(tried)] == []
    assert [proposal.program for proposal in Tuned(lambda: sample).propose(tried) if proposal] == first


def test_tuning_ends_with_the_seconds_of_the_search(sample: Sample) -> None:
    tried = Tried(Budget(calls=0, seconds=1.0), clock=lambda: 2.0)
    program = of(key=KEY_GONE, goal=AT_GOAL.format(40))
    tried.add(Proposal(program), judge(program))
    with pytest.raises(BudgetSpentError, match="all 1 seconds"):
        list(Tuned(lambda: sample).propose(tried))


CODE = """
HOLD = 5
def progress(frame, initial):
    é = "2" if frame[30, 40, 0] > 99 else 3.5
    share = count(frame, band=(8, 240)) / 64 + 1
    if share > 0.25: return 0.5
    return min(1.0, share - 0.75)
"""


def test_numbers_are_measures_those_that_are_compared_first() -> None:
    assert [number.value for number in numbers(CODE)] == [99, 0.25, 3.5, 8, 240, 64, 0.75]
    assert numbers("def progress(") == []


def test_replaced_numbers_stand_where_the_old_ones_stood() -> None:
    found = [number for number in numbers(CODE) if number.value in (99, 3.5, 0.25)]
    changed = replaced(CODE, found, [100.4, 0.123456, 7.0])
    assert changed == CODE.replace("99", "100").replace("0.25", "0.1235").replace("3.5", "7.0")
