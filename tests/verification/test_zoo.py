"""The zoo that the gate is measured with: every kind of bad program is there, and each can be run."""

import ast

import pytest

from benchmarks.mutants import mutants
from benchmarks.zoo import CODES, EVENTS, PLANS, bad_programs, good_programs
from carl.sandbox.policy import violations
from carl.tasks import get_task

KINDS = {"early", "timer", "dropped last", "moved", "wrongly graded", "mutant"}


@pytest.mark.parametrize("task", PLANS)
def test_every_kind_is_there_and_keeps_to_what_programs_may_contain(task):
    bad, good = bad_programs(task), good_programs(task)
    assert {one.kind for one in bad} >= KINDS
    assert {one.kind for one in good} == {"good", "margin", "rewritten", "graded", "weighed"}
    assert len({(one.kind, one.name) for one in bad}) == len(bad)
    codes = {step.code for one in (*bad, *good) for step in one.program.subtasks}
    assert [found for code in codes for found in violations(code)] == []


@pytest.mark.parametrize("task", PLANS)
def test_sub_tasks_claim_events_that_the_oracle_knows(task):
    made = get_task(task).make()
    made.reset(seed=0)
    known = get_task(task).oracle(made).keys()
    made.close()
    for one in (*bad_programs(task), *good_programs(task)):
        assert len(one.events) == len(one.program.subtasks)
        assert {*one.events} <= known


def test_variants_differ_from_what_they_are_variants_of():
    for task in PLANS:
        codes = [tuple(step.code for step in one.program.subtasks) for one in good_programs(task)]
        assert len({*codes}) == len(codes) - 1, "the weighed one alone has the same code"


@pytest.mark.parametrize("kind", EVENTS)
def test_mutants_have_one_change_each(kind):
    found = mutants(CODES[kind])
    assert len(found) > 10
    assert len({code for _, code in found}) == len(found)
    usual = ast.unparse(ast.parse(CODES[kind])).splitlines()
    for what, code in found:
        changed = [pair for pair in zip(usual, code.splitlines(), strict=True) if pair[0] != pair[1]]
        assert len(changed) == 1, what


def test_mutants_of_numbers_comparisons_operators_and_functions():
    code = "def progress(frame, initial):\n    return float(vision.largest(initial).sum() > 4 and not frame.any())\n"
    names = [what.split(", ", 1)[1] for what, _ in mutants(code)]
    assert {"4 as 8", "Gt as Lt", "largest as outline", "frame as initial", "And as Or", "without Not"} <= {*names}
