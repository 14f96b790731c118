"""The gate passes what is right and rejects what is wrong, and says which sub-task, which frame, and why."""

import json
from dataclasses import replace

import numpy as np
import pytest

from carl.config import VerifyConfig
from carl.episodes.missing import Missing
from carl.errors import ProgramError, StoreError
from carl.program import RewardProgram, SubTask
from carl.rewards.program import ProgramReward
from carl.rewards.source import Seen
from carl.sandbox.box import Box
from carl.statistics import exact_bound, wilson_interval
from carl.verification import Case, Check, Evidence, Gate, Rule, VerificationReport, default_rules, trace, verify
from carl.verification.replay import Replay
from carl.verification.rule import FRAMES_SHOWN, deciding
from carl.verification.rules import Deterministic
from tests.verification.episodes import GOOD, KEY_GONE, REACH_GOAL, experts, kinds, program, randoms

CONFIG = VerifyConfig(min_experts=2, min_randoms=60, deadline_s=0.3, max_part=0.5, max_frame_ms=1000.0)
EXPERTS, RANDOMS = experts(), randoms()


def judged(candidate: RewardProgram, config: VerifyConfig = CONFIG, shown=None, played=None) -> VerificationReport:
    config = config.model_copy(update={"max_contradicted": 1.0})  # episodes that a test edits contradict the others
    return verify(candidate, kinds(EXPERTS if shown is None else shown, RANDOMS if played is None else played), config)


def only_failure(report: VerificationReport) -> Check:
    assert not report.accepted
    assert len(report.failed) == 1, [str(check) for check in report.failed]
    return report.failed[0]


def test_a_good_program_is_accepted_with_all_checks_and_figures():
    told = []
    report = verify(GOOD, kinds(EXPERTS, RANDOMS), CONFIG, lambda *what: told.append(what))
    assert report.accepted, report.evidence()
    assert report.program_id == GOOD.id
    assert [check.name for check in report.checks] == [
        "sound_evidence",
        "static_policy",
        "abstains",
        "deterministic",
        "experts_complete",
        "already_done",
        "done_with_task",
        "lasting",
        "degrees_expert",
        "cost",
        "random_completion",
        "for_nothing_random",
        "only_solved_random",
        "needed",
    ]
    assert all(check.passed and check.message and not check.frames for check in report.checks)
    figures = next(check.figures for check in report.checks if check.name == "random_completion")
    done = sum(trajectory.success for trajectory in RANDOMS)
    assert 0 < done <= 6
    assert (figures["completed"], figures["share"]) == (done, 0.0)
    assert figures["interval"] == pytest.approx(wilson_interval(0, 60))
    assert figures["bound"] == exact_bound(0, 60)
    assert figures["done_per_subtask"][0] > done
    assert report.episodes == {"expert": 8, "random": 60}
    assert report.unjudged["degrees_mixed"] == "mixed episodes: none were recorded"
    assert report.left_open == (
        "at 95 %, these episodes cannot exclude a fault in 31.2 % of the seeds (8 expert episodes), "
        "4.9 % of the seeds (60 random episodes)"
    )
    assert report.frames > 8 * 10
    assert report.evidence() == ""
    assert told[0] == ("judging expert episodes", 8, 8.0)
    assert told[-1] == ("judging random episodes", 60, 60.0)


def test_a_report_survives_json(tmp_path):
    report = judged(program(REACH_GOAL.replace("/ first", "/ 99"), KEY_GONE))
    path = tmp_path / "report.json"
    path.write_text(report.to_json())
    assert VerificationReport.load(path) == report
    path.write_text("{")
    with pytest.raises(StoreError, match=r"report\.json"):
        VerificationReport.load(path)


def test_a_report_with_the_counts_of_two_kinds_alone_is_still_read(tmp_path):
    path = tmp_path / "report.json"
    older = {"program_id": GOOD.id, "accepted": True, "checks": [], "frames": 9, "seconds": 1.0}
    path.write_text(json.dumps(older | {"experts": 3, "randoms": 2}))
    report = VerificationReport.load(path)
    assert (report.episodes, report.unjudged) == ({"expert": 3, "random": 2}, {})


def returning(expression: str) -> str:
    return f"def progress(frame, initial):\n    return {expression}\n"


def test_a_forbidden_program_is_not_run():
    report = judged(program(KEY_GONE, "import os\n" + returning("np.load('x')"), returning("open('y')")))
    assert [(check.name, check.subtask) for check in report.failed] == [("static_policy", 1), ("static_policy", 2)]
    assert "line 1: `import os`" in report.evidence(1)
    assert "line 3: `np.load`" in report.evidence(1)
    assert "open" not in report.evidence(1)
    assert "sub-task 3 ('third')" in report.evidence(2)
    assert report.frames == 0


def test_done_at_the_start_is_rejected():
    check = only_failure(judged(program(returning("1.0"), REACH_GOAL)))
    assert (check.name, check.subtask) == ("already_done", 0)
    assert check.figures["already_done"] == len(EXPERTS)
    assert (check.frames[0].source, check.frames[0].seed, check.frames[0].step) == ("expert", 0, 0)
    assert "below 1 in the initial frame" in check.frames[0].expected


def test_done_with_the_one_before_is_rejected():
    check = only_failure(judged(program(KEY_GONE, KEY_GONE)))
    assert (check.name, check.subtask) == ("already_done", 1)
    first = check.frames[0]
    assert first.step == next(t for t, frame in enumerate(EXPERTS[0].frames) if not (frame[..., 1] > 200).any())
    assert "just done" in first.expected


def test_random_play_is_judged_on_the_initial_frame_only():
    """What random play does before its turn (here: be on the right when the key is taken) is no fault of a program."""
    jumped = [replace(RANDOMS[0], frames=EXPERTS[0].frames[[0, 0, -1]], success=True), *RANDOMS[1:]]
    assert judged(GOOD, played=jumped).accepted
    dirty = [replace(RANDOMS[0], frames=np.maximum(RANDOMS[0].frames, np.array([0, 0, 60], np.uint8))), *RANDOMS[1:]]
    blue = "def progress(frame, initial):\n    return float(initial[0, 0, 2] > 50 or not (frame[..., 1] > 200).any())\n"
    check = only_failure(judged(program(blue, REACH_GOAL), played=dirty))
    assert (check.name, check.subtask, check.frames[0].source) == ("already_done", 0, "random")


def test_the_wrong_order_is_rejected():
    check = only_failure(judged(program(REACH_GOAL, KEY_GONE)))
    assert (check.name, check.subtask) == ("already_done", 1)


def test_an_expert_that_gets_stuck_names_the_sub_task_and_its_best_frame():
    half = REACH_GOAL.replace("/ first", "/ (2 * first)")
    report = judged(program(KEY_GONE, half))
    check = only_failure(report)
    assert (check.name, check.subtask) == ("experts_complete", 1)
    assert check.figures == {"completed": 0, "episodes": 8, "stuck": 8, "bound": 1.0}
    frame = check.frames[0]
    assert frame.step == len(EXPERTS[0])
    assert frame.got == f"at best 0.5, at frame {len(EXPERTS[0])}"
    assert report.episodes == {"expert": 8}
    text = report.evidence(1)
    assert "sub-task 2 ('reach the goal') never gets done in 8 of 8 expert episodes" in text
    assert f"expert episode 0, frame {len(EXPERTS[0])}: sub-task 2: expected progress 1 by this last frame" in text
    assert report.evidence(0) == ""
    assert report.evidence() == text


def test_one_stuck_expert_is_enough():
    cut = [*EXPERTS[:-1], replace(EXPERTS[-1], frames=EXPERTS[-1].frames[:-1])]
    check = only_failure(judged(GOOD, shown=cut))
    assert [frame.seed for frame in check.frames] == [7]
    assert check.figures["completed"] == 7


def test_what_random_play_completes_is_rejected():
    easy = "def progress(frame, initial):\n    return float((frame[..., 0] > 200).sum(axis=0)[6] > 0)\n"
    lenient = CONFIG.model_copy(update={"max_early": 1.0, "max_undone": 1.0, "max_unsolved": 1.0})
    check = judged(program(easy), lenient).failed[0]
    assert (check.name, check.subtask) == ("random_completion", None)
    assert check.figures["share"] > 0.1
    assert check.figures["share"] <= check.figures["bound"]
    assert check.frames[0].source == "random"
    assert judged(program(easy), lenient.model_copy(update={"max_random_completion": 1.0})).accepted


def test_too_few_random_episodes_ask_for_more():
    check = only_failure(judged(GOOD, CONFIG.model_copy(update={"min_randoms": 61})))
    assert check.name == "random_completion"
    assert "61 episodes are needed to judge by: collect more" in check.message


def test_passing_over_the_goal_is_told_from_resting_on_it_by_a_hold():
    """Half of the experts are told to pass over the goal: what they show there for a frame is no resting."""
    rests = [replace(one, frames=np.concatenate([one.frames, one.frames[[-1, -1]]])) for one in EXPERTS]
    passes = [replace(one, frames=np.concatenate([one.frames, one.frames[[-2, -3]]])) for one in EXPERTS]
    resting = RewardProgram(subtasks=(SubTask(name="rest", code=REACH_GOAL, hold=3),))
    assert not only_experts(resting, passes)
    assert only_experts(resting, rests)
    assert only_experts(program(REACH_GOAL), passes)
    check = judged(resting, shown=passes).failed[0]
    assert "it has to be shown done in 3 frames in a row" in check.message
    traced = trace(resting, rests[0])[:, 0]
    assert traced[-2] < traced[-1] == 1.0


def only_experts(candidate: RewardProgram, shown) -> bool:
    """Whether all experts complete it."""
    replay = Replay(candidate, shown)
    with Box(candidate) as box:
        replay.run([box])
    assert replay.completed.tolist() == [episode.completed for episode in replay.episodes()]
    assert replay.completed.tolist() == [episode.done_at[-1] >= 0 for episode in replay.episodes()]
    return bool(replay.completed.all())


def test_no_experts_ask_for_some():
    assert "collect some" in only_failure(judged(GOOD, shown=[])).message


BAD = {
    "NaN": ("np.nan * frame[0, 0, 0]", "returned NaN"),
    "a string": ("'done'", "returned 'done'"),
    "7": ("7", "returned 7, outside [0, 1]"),
    "None": ("None", "returned None"),
    "1 TB": ("np.ones((1000, 1000, 1000, 1000)).mean()", "MemoryError"),
    "raises": ("frame[1000, 0, 0]", "raised IndexError"),
    "loops": ("sum(i for i in range(10 * 10**8) for j in range(10**8))", "ran past its deadline of 0.3 s"),
}


@pytest.mark.parametrize(("expression", "reason"), BAD.values(), ids=BAD.keys())
def test_what_gives_no_number_is_rejected_with_the_reason(expression, reason):
    report = judged(program(KEY_GONE, returning(expression)))
    check = only_failure(report)
    assert (check.name, check.subtask) == ("abstains", 1)
    assert reason in check.frames[0].got
    assert reason in report.evidence(1)


def test_an_abstain_in_random_play_is_rejected():
    seldom = REACH_GOAL.replace("columns[0]", "columns[0 if frame[0, 0, 0] == 20 else 99]")
    odd = [*RANDOMS[:-1], replace(RANDOMS[-1], frames=RANDOMS[-1].frames + np.uint8(1))]
    report = judged(program(KEY_GONE.replace("[..., 0] < 50", "[..., 0] < 51"), seldom), played=odd)
    check = only_failure(report)
    assert (check.name, check.frames[0].source, check.frames[0].seed) == ("abstains", "random", 1059)


def test_a_program_that_remembers_is_found_by_the_second_run():
    remembers = (
        "def progress(frame, initial):\n"
        "    try:\n        math.seen += 1\n    except:\n        math.seen = 1\n"
        "    return min(math.seen / 1000, 1.0)\n"
    )
    candidate = program(remembers)
    replay = Replay(candidate, EXPERTS)
    with Box(candidate, policy=lambda _: None) as box, Box(candidate, policy=lambda _: None) as again:
        replay.run([box])
        replay.repeat([again])
    (check,) = Deterministic().judge(Case(candidate, {Evidence.EXPERTS: list(replay.episodes())}))
    assert not check.passed
    assert check.figures["deterministic"] >= check.figures["frames"] - 1 > 5, (
        "of distinct questions, all but one at most"
    )


def test_latches_do_not_outlive_a_trajectory():
    """An episode that ends halfway must fail even after others that were completed, in whatever batch it is."""
    many = experts(70)
    many[65] = replace(many[65], frames=many[65].frames[:5])
    check = only_failure(judged(GOOD, shown=many))
    assert (check.figures["completed"], check.frames[0].seed) == (69, 65)


def test_frames_are_judged_in_their_order():
    """Backwards, an expert takes no key on the way and starts on the goal."""
    backwards = [replace(trajectory, frames=trajectory.frames[::-1].copy()) for trajectory in EXPERTS]
    report = judged(GOOD, shown=backwards)
    assert not report.accepted
    assert {check.name for check in report.failed} == {"experts_complete"}


def test_any_order_where_the_program_says_so():
    assert judged(program(REACH_GOAL, KEY_GONE, ordered=False)).accepted


def test_episodes_may_come_one_by_one():
    assert verify(GOOD, kinds(iter(EXPERTS), iter(RANDOMS)), CONFIG).accepted


def test_frames_of_several_sizes_blame_the_episodes():
    check = only_failure(judged(GOOD, shown=[*EXPERTS, replace(EXPERTS[0], seed=77, frames=EXPERTS[0].frames[:, :4])]))
    assert (check.name, check.subtask) == ("sound_evidence", None)
    assert "several sizes" in check.message
    assert "of seed 77," in check.message


def test_an_expert_that_failed_does_not_reject_a_good_program():
    """The episodes are blamed, and no sub-task."""
    unsolved = replace(EXPERTS[1], frames=EXPERTS[1].frames[:4], actions=EXPERTS[1].actions[:3], success=False)
    check = only_failure(judged(GOOD, shown=[*EXPERTS, unsolved]))
    assert (check.name, check.subtask) == ("sound_evidence", None)
    assert "fails in 1 of 9 episodes, of seed 1," in check.message


def test_a_trace_is_what_rollouts_pay():
    expert = EXPERTS[1]
    traced = trace(GOOD, expert)
    assert traced.shape == (len(expert) + 1, 2)
    assert (np.diff(traced, axis=0) >= 0).all()
    assert traced[-1].tolist() == [1.0, 1.0]
    taken = int(np.argmax(traced[:, 0] == 1.0))
    assert (traced[:taken, 1] == 0).all()
    session = ProgramReward(GOOD).open(1)
    slot, frames = np.array([0]), expert.frames
    steps = (session.look(Seen(slot, np.array([t == 0]), frames[t : t + 1])) for t in range(len(expert) + 1))
    paid = sum(judged.reward[0] for judged in steps)
    session.close()
    assert paid == pytest.approx((traced[-1, 0] - traced[0, 0]) + (traced[-1, 1] - traced[taken, 1]))


def test_a_trace_goes_on_after_an_abstain():
    gap = REACH_GOAL.replace("np.clip(", "np.nan if columns[0] == 12 else np.clip(")
    traced = trace(program(gap), EXPERTS[0])
    assert traced[-1, 0] == 1.0
    assert traced[6, 0] == traced[5, 0]


def test_a_trace_refuses_what_the_policy_refuses():
    with pytest.raises(ProgramError, match="import os"):
        trace(program("import os\n" + KEY_GONE), EXPERTS[0])


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(0, 200, 0.0, 0.0188), (20, 200, 0.0657, 0.1494), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (0, 0, 0, 1)],
)
def test_wilson_interval(hits, trials, low, high):
    assert wilson_interval(hits, trials) == pytest.approx((low, high), abs=1e-4)


class TakesTime(Rule):
    """An expert needs several steps for each sub-task: what it does in one is no step of a plan."""

    name = "takes_time"
    needs = frozenset({Evidence.EXPERTS})

    def judge(self, case: Case) -> list[Check]:
        failed = []
        for index in range(len(case.program.subtasks)):
            found = [
                deciding(episode, episode.tracks[index].done_at, index, "below 1 after one step", "1")
                for episode in case.experts
                if episode.tracks[index].done_at == episode.tracks[index].active_at + 1
            ]
            if found:
                figures = {"hasty": len(found), "episodes": len(case.experts)}
                failed.append(self.failed(f"{case.named(index)} takes one step", figures, index, found))
        return failed or [self.passed("every sub-task takes several steps", {"hasty": 0})]


def test_a_rule_of_twenty_lines_rejects_what_the_default_rules_accept():
    beside_the_key = REACH_GOAL.replace("columns[0] / first", "columns[0] / 8")
    hasty = program(KEY_GONE, beside_the_key, REACH_GOAL)
    evidence = {Evidence.EXPERTS: EXPERTS, Evidence.RANDOMS: RANDOMS}
    gate = Gate.of(CONFIG)
    assert gate.judge(hasty, evidence).accepted
    strict = replace(gate, rules=(*gate.rules, TakesTime()))
    check = only_failure(strict.judge(hasty, evidence))
    assert (check.name, check.subtask, check.figures) == ("takes_time", 1, {"hasty": 8, "episodes": 8})
    assert len(check.frames) == FRAMES_SHOWN
    assert strict.judge(GOOD, evidence).accepted


class Untouched(list):
    """Episodes that nobody may look at."""

    def __iter__(self):
        raise AssertionError("this evidence is not to be made")


def test_evidence_is_made_when_a_rule_needs_it_and_nothing_has_failed():
    gate = Gate.of(CONFIG)
    forbidden = program("import os\n" + KEY_GONE, REACH_GOAL)
    half = program(KEY_GONE, REACH_GOAL.replace("/ first", "/ (2 * first)"))
    untouched = Untouched()
    assert not gate.judge(forbidden, {Evidence.EXPERTS: untouched, Evidence.RANDOMS: untouched}).accepted
    assert not gate.judge(half, {Evidence.EXPERTS: EXPERTS, Evidence.RANDOMS: untouched}).accepted
    cheap = replace(gate, rules=tuple(rule for rule in gate.rules if Evidence.RANDOMS not in rule.needs))
    report = cheap.judge(GOOD, {Evidence.EXPERTS: EXPERTS, Evidence.RANDOMS: untouched})
    assert (report.accepted, report.episodes) == (True, {"expert": 8})


class Counting(Rule):
    """Passes whatever it is shown, and notes how much that was."""

    name = "counting"

    def __init__(self, *needs: Evidence) -> None:
        self.needs = frozenset(needs)
        self.shown: list[tuple[int, int]] = []

    def judge(self, case: Case) -> list[Check]:
        self.shown.append((len(case.experts), len(case.randoms)))
        return [self.passed("fine", {})]


def test_a_rule_is_applied_anew_when_there_is_more_evidence():
    code, experts_only, both = Counting(), Counting(Evidence.EXPERTS), Counting(Evidence.EXPERTS, Evidence.RANDOMS)
    gate = Gate((both, experts_only, code), Gate.of(CONFIG).limits, CONFIG)
    report = gate.judge(GOOD, {Evidence.EXPERTS: EXPERTS, Evidence.RANDOMS: RANDOMS})
    assert report.accepted
    assert len(report.checks) == 4
    assert (code.shown, experts_only.shown, both.shown) == ([(0, 0)], [(8, 0), (8, 60)], [(8, 60)])


@pytest.mark.parametrize(
    ("brought", "why"),
    [
        ({}, "none were recorded"),
        ({Evidence.MIXED: []}, "none were recorded"),
        ({Evidence.MIXED: Missing("the expert ends where it is led astray")}, "the expert ends where it is led astray"),
    ],
)
def test_a_rule_without_evidence_is_named_and_judges_nothing(brought, why):
    mixed = Counting(Evidence.EXPERTS, Evidence.MIXED)
    gate = Gate.of(CONFIG)
    report = replace(gate, rules=(*gate.rules, mixed)).judge(GOOD, kinds(EXPERTS, RANDOMS) | brought)
    assert report.accepted
    assert mixed.shown == []
    assert report.unjudged["counting"] == f"mixed episodes: {why}"
    assert report.episodes.keys() == {"expert", "random"}


def test_a_rule_is_applied_once_its_kind_of_evidence_is_there():
    mixed = Counting(Evidence.MIXED)
    report = replace(Gate.of(CONFIG), rules=(mixed,)).judge(GOOD, {Evidence.MIXED: EXPERTS[:3]})
    assert (len(mixed.shown), report.episodes, report.unjudged) == (1, {"mixed": 3}, {})


def test_the_default_rules_are_named_as_their_checks():
    names = [rule.name for rule in default_rules(CONFIG)]
    assert names[:5] == ["static_policy", "abstains", "deterministic", "experts_complete", "already_done"]
    assert len({*names}) == len(names)


def test_a_frame_that_recurs_is_asked_about_once_and_again_in_the_second_run(monkeypatch):
    asked = []
    judge = Box.judge

    def counted(self, frames, initials, subtasks, rows, episodes):
        shown = (frame.tobytes() for frame in frames[rows])
        asked.extend((id(self), frame, task) for frame, task in zip(shown, subtasks.tolist(), strict=True))
        return judge(self, frames, initials, subtasks, rows, episodes)

    monkeypatch.setattr(Box, "judge", counted)
    report = verify(GOOD, kinds(EXPERTS, RANDOMS), CONFIG)
    assert report.accepted
    assert len(asked) == len(set(asked)), "all begin alike here, so that no process sees a frame twice"
    assert len({box for box, *_ in asked}) == 2
    assert report.frames > 5 * len(asked)
