"""The search without a model, from episodes to programs."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from carl.config import InductionConfig, VerifyConfig
from carl.episodes.trajectory import Trajectory
from carl.induction import Induced, Unseen, induce, induce_step, mingled
from carl.induction.chains import Chain, candidates, chains
from carl.induction.erring import errors
from carl.induction.layout import Look
from carl.induction.milestones import Goal, finals, intermediate
from carl.induction.table import table
from carl.program import DONE, RewardProgram
from carl.sandbox.policy import violations
from carl.synthesis.induce import InductionProposer
from carl.synthesis.tried import Budget, BudgetSpentError, Tried
from carl.verification import verify
from carl.verification.report import Check, VerificationReport
from carl.verification.rule import Evidence
from tests.verification import episodes as strip


@pytest.fixture(scope="module")
def induced(room) -> Induced:
    return induce(*room(0))


def done_at(program: RewardProgram, episode: Trajectory) -> list[int]:
    """The frames at which the sub-tasks get done, one after the other."""
    steps, start = [], 0
    for subtask in program.subtasks:
        names: dict = {}
        exec(subtask.code, names)
        shown = [names["progress"](frame, episode.frames[0]) for frame in episode.frames[start:]]
        done = [at for at, value in enumerate(shown) if value >= DONE]
        if not done:
            return steps
        start += done[0]
        steps.append(start)
    return steps


def test_what_it_finds_in_a_room_are_true_events_and_passes_the_gate_on_other_episodes(induced, room):
    experts, randoms = room(1)
    program = induced.programs[0]
    evidence = {Evidence.EXPERTS: experts, Evidence.RANDOMS: randoms}
    report = verify(program, evidence, VerifyConfig(min_experts=2, min_randoms=len(randoms)))
    assert report.accepted, report.evidence()
    for expert in experts:
        key, door, goal = (int(np.argmax(event)) for event in expert.events.values())
        assert done_at(program, expert) in ([key, door, goal], [door, goal])


def test_the_same_episodes_give_the_same_programs(induced, room):
    again = induce(*room(0))
    assert [program.id for program in again.programs[:20]] == [program.id for program in induced.programs[:20]]


HASHED = """
from carl.induction import induce
from tests.verification import episodes as strip
print(*(program.id for program in induce(strip.experts(6), strip.randoms(8)).programs[:40]))
"""


def test_processes_that_hash_otherwise_find_the_same_programs():
    found = [
        subprocess.run(
            [sys.executable, "-c", HASHED], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert len(found[0].split()) == 40


def test_a_chain_whose_order_no_expert_keeps_errs_in_all_unseen_episodes():
    measured = table(strip.experts(6), strip.randoms(8, steps=5))
    right = chains(measured, intermediate(measured), finals(measured, Goal.success(measured)))[0]
    reversed_ = replace(right, milestones=right.milestones[::-1])
    unseen = table(strip.experts(12)[6:], strip.randoms(4), like=measured)
    assert errors(unseen, [right]) == [0.0]
    assert errors(unseen, [reversed_]) >= [1.0]


def test_what_moving_on_undoes_is_no_milestone_and_errs():
    measured = table(strip.experts(6), strip.randoms(24, steps=9))
    every = {measured.features[each.conditions[0].feature].words(1, 0.5): each for each in intermediate(measured)}
    goal = finals(measured, Goal.success(measured))[0].milestone
    taken, dark = (
        next(each for words, each in every.items() if words.startswith(place))
        for place in ("the green thing is gone", "at least 50 % of the green thing is lit")
    )
    assert [each.milestone for each in candidates(measured, [taken, dark])] == [taken]
    unseen = table(strip.experts(12)[6:], strip.randoms(60, steps=9)[24:], like=measured)
    found = [Chain(milestones, 0.0, 0.0, 0.0) for milestones in ((taken, goal), (dark, goal))]
    lasting, undone = errors(unseen, found)
    assert lasting == 0.0
    assert undone > 0.1


def test_what_looking_closer_does_not_better_is_kept(monkeypatch):
    module, looked = sys.modules["carl.induction.induce"], []

    def measured(*episodes, look=Look.PLAIN, **more):
        looked.append(look)
        return table(*episodes, look=look, **more)

    monkeypatch.setattr(module, "table", measured)
    monkeypatch.setattr(module, "_refusal", lambda _: "nothing" if looked[-1] > Look.PLAIN else "")
    monkeypatch.setattr(module, "errors", lambda _, found: [1.0] * len(found))
    kept = induce(strip.experts(6), strip.randoms(8), unseen=Unseen(strip.experts(8)[6:], strip.randoms(4)))
    assert looked[-1] is Look.POINTING, "the best chain errs"
    assert (kept.refusal, bool(kept.programs)) == ("", True)


def test_what_it_writes_is_allowed_and_short(induced):
    assert 2 <= len(induced.programs) <= 200
    for program in induced.programs[:40]:
        for subtask in program.subtasks:
            assert not violations(subtask.code), subtask.code
            assert len(subtask.code.splitlines()) <= 50
            assert subtask.name.isprintable()


def test_a_strip_with_a_key_and_a_goal(room):
    found = induce(strip.experts(), strip.randoms(24))
    assert done_at(found.programs[0], strip.experts(1)[0])[-1] == len(strip.experts(1)[0])


def at_rest(seed: int, role: str) -> Trajectory:
    """A square that goes to and fro; an expert ends it wherever it has just been before, which no frame shows."""
    rng = np.random.default_rng(seed)
    places = [10, 12, 14, 12, 10, 8, 10, 12, 12] if role == "expert" else (8 + 2 * rng.integers(0, 4, 9)).tolist()
    frames = np.stack([strip.picture(place, key=False) for place in places])
    return Trajectory(frames, np.zeros(8), np.zeros(8), role == "expert", False, role == "expert", seed, role)


def test_it_refuses_where_no_frame_shows_success():
    experts, randoms = ([at_rest(seed, role) for seed in range(10)] for role in ("expert", "random"))
    found = induce(experts, randoms)
    assert not found.programs
    assert "cannot be seen in a frame" in found.refusal


def blinking(seed: int, success: bool) -> Trajectory:
    """A square that walks over a goal; at success a single brown pixel appears, anywhere on it."""
    rng = np.random.default_rng(seed)
    places = [10, 20, 20, 18, 20, 20] if success else [10, 20, 18, 20, 20, 18]
    frames = np.stack([strip.picture(place, key=False) for place in places])
    if success:
        frames[-1, rng.integers(2, 6), rng.integers(20, 24)] = (250, 40, 24)
    return Trajectory(
        frames, np.zeros(5), np.zeros(5), success, False, success, seed, "expert" if success else "random"
    )


def test_an_exact_colour_shows_success_where_nothing_else_does():
    experts, randoms = [blinking(seed, True) for seed in range(8)], [blinking(seed, False) for seed in range(12)]
    program = induce(experts, randoms).programs[0]
    assert [done_at(program, one)[-1:] for one in experts] == [[5]] * 8
    assert "vision.near" in program.subtasks[-1].code


def fetched(seed: int, success: bool) -> tuple[Trajectory, int]:
    """A square walks about; a brown mark anywhere goes at some step, and at success a lilac one comes; the step."""
    rng = np.random.default_rng(seed)
    steps, gone = 10, int(rng.integers(3, 8)) if success or seed % 3 == 0 else 11
    frames = np.stack([strip.picture(int(2 * rng.integers(0, 10)), key=False) for _ in range(steps + 1)])
    frames[:gone, 0, rng.integers(0, 24)] = (184, 104, 104)
    if success:
        frames[-1, 7, rng.integers(0, 24)] = (120, 104, 152)
    actions, role = rng.integers(0, 4, steps), "expert" if success else "random"
    return Trajectory(frames, actions, np.zeros(steps), success, False, success, seed, role), gone


def test_an_exact_colour_that_goes_on_the_way_is_a_milestone():
    experts, randoms = [fetched(seed, True) for seed in range(10)], [fetched(seed, False)[0] for seed in range(24)]
    program = induce([one for one, _ in experts], randoms).programs[0]
    assert [done_at(program, one) for one, _ in experts] == [[gone, 10] for _, gone in experts]


def test_it_refuses_where_nothing_is_true_of_every_end():
    still = replace(at_rest(0, "expert"), frames=np.stack([strip.picture(10, key=False)] * 9))
    assert "every initial frame" in induce([still] * 4, [still] * 4).refusal


def test_it_refuses_a_single_expert_episode():
    assert "1 expert episodes show nothing in common" in induce(strip.experts(1), strip.randoms(4)).refusal


def test_near_misses_are_told_from_success():
    """All stop short of the goal, where the square already overlaps it."""
    experts = strip.experts()
    near = [
        replace(one, frames=one.frames[:-1], success=False, terminated=False, role="cut", actions=one.actions[:-1])
        for one in experts
    ]
    program = induce(experts, strip.randoms(24), others=near).programs[0]
    assert all(len(done_at(program, one)) < len(program.subtasks) for one in near)


def test_one_sub_task_between_two_frames(room):
    experts, randoms = room(0)
    since, until = (
        [int(np.argmax(expert.events[event])) for expert in experts] for event in ("key carried", "door open")
    )
    program = induce_step(experts, randoms, since, until).programs[0]
    names: dict = {}
    exec(program.subtasks[0].code, names)
    for expert, start, end in zip(experts, since, until, strict=True):
        shown = [names["progress"](frame, expert.frames[0]) for frame in expert.frames[start : end + 1]]
        assert [value >= DONE for value in shown] == [False] * (end - start) + [True]


def test_what_begins_as_a_refused_program_is_not_proposed():
    proposer, tried = InductionProposer(strip.experts(12), strip.randoms(24)), Tried(Budget(calls=0))
    beginnings = []
    for proposal in proposer.propose(tried):
        refusal = Check(name="lasting", passed=False, message="undone", subtask=0)
        report = VerificationReport(
            program_id=proposal.program.id, accepted=False, checks=(refusal,), episodes={}, frames=0, seconds=0.0
        )
        tried.add(proposal, report)
        beginnings.append(proposal.program.subtasks[0].name)
    assert len(beginnings) > 1
    assert len(set(beginnings)) == len(beginnings)


def test_the_search_ends_with_the_seconds_of_the_budget():
    measured = []
    proposer = InductionProposer(strip.experts(12), strip.randoms(24), progress=lambda *report: measured.append(report))
    clock = iter([0.0, 0.5] + [1.5] * 100)
    with pytest.raises(BudgetSpentError, match="all 1 seconds"):
        next(proposer.propose(Tried(Budget(calls=0, seconds=1.0), clock=lambda: next(clock))))
    assert len(measured) == 2, "it was stopped at its third report"


def test_the_proposer_keeps_a_third_from_the_search_and_says_why_it_ends():
    experts, randoms = strip.experts(12), strip.randoms(24)
    proposer = InductionProposer(experts, randoms, config=InductionConfig(programs=3))
    proposed = [proposal.program.id for proposal in proposer.propose(Tried(Budget(calls=0)))]
    unseen = Unseen(experts[8:], mingled(randoms[16:]))
    assert proposed == [program.id for program in induce(experts[:8], randoms[:16], unseen=unseen).programs[:3]]
    assert proposer.exhausted == "none of the 3 programs that were found without a model is accepted"
    refused = InductionProposer([at_rest(0, "expert")] * 3, [at_rest(1, "random")] * 3)
    assert not [*refused.propose(Tried(Budget(calls=0)))]
    assert "cannot be seen" in refused.exhausted
