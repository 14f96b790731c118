"""A single sub-task that a model failed at is found in the episodes, and the others stay the model's."""

import pytest

from carl.config import VerifyConfig
from carl.program import RewardProgram, SubTask
from carl.synthesis.search import HeldOutGate, SearchGate, search
from carl.synthesis.stepped import StepInduction
from carl.synthesis.tried import Budget, Proposal, Tried
from carl.verification import verify
from carl.verification.sample import Sample
from tests.synthesis.test_pooled_tuned import NEVER, REACHED, Model, of
from tests.verification.episodes import KEY_GONE, experts, kinds, randoms

EPISODES = kinds(experts(12), randoms(20))
CONFIG = VerifyConfig(min_experts=2, min_randoms=20, max_random_completion=0.5)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return Sample(EPISODES)


def judge(program: RewardProgram, number: int = 0):
    return verify(program, EPISODES, CONFIG)


def test_a_last_sub_task_that_failed_is_induced_under_its_name(sample: Sample) -> None:
    model = Model((of(key=KEY_GONE, goal=NEVER), of(key=NEVER, goal=NEVER)))
    found = search([StepInduction(lambda: sample), model], SearchGate(judge, HeldOutGate(judge)), Budget(calls=9))
    assert found.program is not None
    key, goal = found.program.subtasks
    assert (key.code, goal.name, found.candidates[-1].proposer) == (KEY_GONE, "goal", "step")
    assert goal.description, "what it measures"
    assert model.asked == 1


def test_without_experts_that_show_where_it_ends_nothing_is_induced(sample: Sample) -> None:
    tried = Tried(Budget(calls=0))
    program = of(key=NEVER, goal=REACHED)
    tried.add(Proposal(program), judge(program))
    assert [*StepInduction(lambda: sample).propose(tried)] == []


def test_the_same_failure_is_looked_at_once(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(StepInduction, "_others", lambda *_: calls.append(1) or [])
    tried = Tried(Budget(calls=0))
    program = RewardProgram(subtasks=(SubTask(name="key", code=NEVER),))
    tried.add(Proposal(program), judge(program))
    proposer = StepInduction(lambda: sample)
    assert [*proposer.propose(tried), *proposer.propose(tried)] == []
    assert calls == [1]
