"""Every rule with a program that it alone rejects, on episodes of MiniGrid; and good programs, which pass them all."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from benchmarks import zoo
from carl.config import VerifyConfig
from carl.episodes.kinds import Mixed, strays
from carl.episodes.play import made
from carl.methods.code import CodeConfig
from carl.nano import programs
from carl.program import RewardProgram, SubTask
from carl.runs.report.gate import bounded
from carl.runs.resolve import by_default
from carl.sandbox.box import Box
from carl.statistics import exact_bound
from carl.tasks import get_task
from carl.verification import Case, Check, Evidence, Gate, default_rules
from carl.verification.asking import fitted
from carl.verification.episode import Episode, Track
from carl.verification.replay import Replay
from carl.verification.rules_done import AlreadyDone, ExpertsComplete, OnlySolved
from carl.verification.rules_lasting import Lasting, usual_actions
from carl.verification.rules_near import Degrees, concordance
from carl.verification.rules_paid import ForNothing, Needed, RandomCompletion
from carl.verification.rules_running import Cost
from carl.verification.variations import VARIATIONS
from tests.verification.episodes import GOOD, KEY_GONE, REACH_GOAL, experts, kinds, program, randoms
from tests.verification.played import RANDOMS, evidence

CONFIG = VerifyConfig(min_experts=2, min_randoms=6, max_frame_ms=1000.0, idle=(0, 1))
KEY, DOOR, GOAL = programs.PICK_UP_KEY, programs.OPEN_DOOR, programs.REACH_GOAL

CLOSED_AGAIN = DOOR.replace("def progress", "def open_door") + GOAL.replace("from carl import vision\n", "").replace(
    "    return float(", "    return float(open_door(frame, initial) < 1 or "
)
"""Done also where the door was closed again, which no expert does."""


def three(key: str = KEY, door: str = DOOR, goal: str = GOAL) -> RewardProgram:
    named = {"take the key": key, "open the door": door, "reach the goal": goal}
    return RewardProgram(subtasks=tuple(SubTask(name=name, code=code) for name, code in named.items()))


def refusals(program: RewardProgram, brought, without: str = "") -> list[Check]:
    """The failed checks of the default rules, but for those whose name begins so."""
    rules = tuple(rule for rule in default_rules(CONFIG) if not (without and rule.name.startswith(without)))
    return list(replace(Gate.of(CONFIG), rules=rules).judge(program, brought).failed)


def rejected_by_it_alone(name: str, program: RewardProgram, brought) -> Check:
    """The failed check of the rule of that name; without it (and its like on other evidence) the program passes."""
    found = refusals(program, brought)
    assert {check.name.removesuffix(f"_{kind}") for check in found for kind in Evidence if kind in check.name} | {
        check.name for check in found if not any(kind in check.name for kind in Evidence)
    } == {name}, [str(check) for check in found]
    assert refusals(program, brought, without=name) == []
    assert found[0].frames
    return found[0]


def some(task: str, *kinds: Evidence, randoms: int = RANDOMS):
    brought = {kind: evidence(task)[kind] for kind in kinds or evidence(task)}
    return brought | {Evidence.RANDOMS: brought[Evidence.RANDOMS][:randoms]}


@pytest.mark.parametrize("task", ["DoorKey-6x6", "Unlock"])
def test_good_programs_pass_on_all_evidence(task):
    for one in zoo.good_programs(task):
        if one.kind == "good" or one.name.endswith("at most 0.4"):
            assert refusals(one.program, evidence(task)) == [], one.name


def test_a_dropped_last_sub_task_is_done_before_the_task():
    program = RewardProgram(subtasks=three().subtasks[:2])
    check = rejected_by_it_alone(
        "done_with_task", program, some("DoorKey-6x6", Evidence.EXPERTS, Evidence.RANDOMS, randoms=6)
    )
    assert check.subtask == 1
    assert check.message.startswith(
        "rewarded too early: sub-task 2 ('open the door') is done before the task is solved"
    )
    assert (check.figures["early"], check.figures["episodes"], check.figures["bound"]) == (24, 24, 1.0)
    assert "frames before the task is solved" in check.frames[0].got


def test_standing_before_the_door_is_not_having_opened_it():
    check = rejected_by_it_alone("lasting", three(door=zoo.facing("door")), evidence("DoorKey-6x6"))
    assert check.subtask == 1
    assert "it had not happened yet, or the later frame is misread" in check.message
    assert check.figures["undone"] > 0.8 * check.figures["episodes"]


def test_what_an_expert_led_astray_undoes_itself_was_too_early():
    """Without the door, a key that is dropped by chance counts as put down; the expert takes it up again."""
    task = get_task("UnlockPickup")
    with made(task, 0) as env:
        astray = {Evidence.MIXED: [Mixed(60)(task, env, 1000 + seed) for seed in range(40)]}
    brought = some("UnlockPickup", Evidence.EXPERTS, Evidence.RANDOMS, randoms=6) | astray
    by_name = {
        (one.kind, one.name): one.program for one in (*zoo.bad_programs(task.name), *zoo.good_programs(task.name))
    }
    (check,) = refusals(by_name["dropped", "door"], brought, without="only_solved")
    assert (check.name, check.subtask) == ("lasting", 1)
    assert "of 39 half-trained episodes, by the expert in them" in check.message
    assert check.message.endswith("or add the sub-task that has to come first")
    assert refusals(by_name["good", "embedded"], brought, without="only_solved") == []


def test_what_random_steps_of_half_trained_play_undo_is_no_fault_nor_is_one_episode():
    own, stray = ([seed for seed in range(40) if [*islice(strays(seed), 3)] == [False, False, by]] for by in (0, 1))
    undone = Track(0, (0.0, 0.0, 1.0), (0.5,))
    for seeds, passes in ((own[:2], False), (own[:1], True), (stray[:2], True)):
        mixed = [replace(played(undone, steps=3, source="mixed"), seed=seed, actions=np.full(3, 5)) for seed in seeds]
        case = Case(program(GOAL), {Evidence.EXPERTS: [], Evidence.MIXED: mixed})
        assert Lasting(0.1).judge(case)[0].passed == passes


def test_an_event_that_play_undoes_lasts():
    """Half-trained play drops keys and closes doors again; that is no fault of the program."""
    assert refusals(three(), evidence("DoorKey-6x6")) == []


def test_progress_by_something_else_than_nearness_is_misread():
    part = "    part = 0.6 * vision.centre(agent_of(frame, thing_of(initial)))[0] / frame.shape[1]\n"
    column = three(**{kind: zoo.graded_by(kind, part) for kind in ("key", "door")})
    check = rejected_by_it_alone("degrees", column, evidence("DoorKey-6x6"))
    assert check.message.startswith("misread: the partial progress of sub-task 1 ('take the key')")
    assert check.figures["concordance"] < check.figures["least"]
    assert "as it is far from done" in check.frames[0].expected


def test_having_moved_is_paid_for_nothing():
    moved = three(key=zoo.graded_by("key", "    part = 0.3 * float(vision.changed(frame, initial).any())\n"))
    few = some("DoorKey-6x6", Evidence.EXPERTS, Evidence.RANDOMS, Evidence.MIXED)
    few |= {kind: few[kind][:5] for kind in (Evidence.EXPERTS, Evidence.MIXED)}  # too few to compare
    check = rejected_by_it_alone("for_nothing", moved, few)
    assert check.message.startswith("paid for nothing: random play earns")
    assert check.figures["share"] > check.figures["limit"] == 0.02
    assert "never done" in check.frames[0].got


def test_what_an_expert_never_does_may_not_complete_the_program():
    check = rejected_by_it_alone("only_solved", three(goal=CLOSED_AGAIN), evidence("DoorKey-6x6"))
    assert "complete every sub-task without solving the task" in check.message
    assert check.figures["unsolved"] > 0
    kind = check.name.removeprefix("only_solved_")
    lenient = CONFIG.model_copy(update={"max_unsolved": {kind: 0.5}})
    failed = Gate.of(lenient).judge(three(goal=CLOSED_AGAIN), evidence("DoorKey-6x6")).failed
    assert kind not in [one.name.removeprefix("only_solved_") for one in failed], "of this kind alone more may"


def test_a_program_that_a_little_light_changes_is_misread():
    """The synthetic key has a brightness of 250: exactly that is no way to find it where the camera varies."""
    exact = program(KEY_GONE.replace("now = (frame[..., 1] > 200)", "now = (frame[..., 1] > 240)"), REACH_GOAL)
    brought = kinds(experts(), randoms())
    steady = VerifyConfig(min_experts=2, min_randoms=60, max_part=0.5, max_frame_ms=1000.0)
    varying = steady.model_copy(update={"camera_varies": True})
    assert Gate.of(steady).judge(exact, brought).accepted
    assert Gate.of(varying).judge(GOOD, brought).accepted
    (check,) = Gate.of(varying).judge(exact, brought).failed
    assert (check.name, check.subtask) == ("stable", 0)
    assert "1, where the frame is darker; 0 without" in check.frames[0].got


def test_a_task_whose_camera_varies_has_its_programs_judged_so():
    task = replace(get_task("Empty-8x8"), camera_varies=True)
    assert by_default(task, CodeConfig).verify.camera_varies
    assert not by_default(get_task("Empty-8x8"), CodeConfig).verify.camera_varies


def test_variations_are_small_and_the_same_every_time():
    frame = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for name, form in VARIATIONS.items():
        varied = form(frame)
        assert (varied.dtype, varied.shape) == (frame.dtype, frame.shape), name
        assert 0 < np.abs(varied.astype(int) - frame).mean() < (256 if "shifted" in name else 16), name
        np.testing.assert_array_equal(varied, form(frame))


def test_a_slow_program_is_rejected():
    slow = three(key=KEY.replace("    # the key", "    sum(range(400_000))\n    # the key"))
    few = {kind: episodes[:8] for kind, episodes in some("DoorKey-6x6", Evidence.EXPERTS, Evidence.RANDOMS).items()}
    strict = VerifyConfig(min_experts=2, min_randoms=3, max_frame_ms=2.0)
    check, *_ = Gate.of(strict).judge(slow, few).failed  # others may be slow as well on a busy machine
    assert (check.name, check.subtask) == ("cost", 0)
    assert check.figures["ms_per_frame"] > check.figures["limit_ms"] >= 2.0


def played(
    *tracks: Track, source: str = "random", steps: int = 20, solved: bool = False, cost: tuple[float, ...] = ()
) -> Episode:
    """An episode in which sub-tasks showed that."""
    done = all(track.done for track in tracks)
    return Episode(source, 0, steps, solved, done, tracks, np.zeros(steps, dtype=np.int64), cost=cost)


def test_the_cheapest_batch_decides_on_a_busy_machine():
    costs = [played(cost=(0.001, 0.034, 0.0)), played(cost=(0.001, 0.004, 0.0))]
    assert Cost(0.01).judge(Case(three(), {Evidence.EXPERTS: costs}))[0].passed
    check = Cost(0.01).judge(Case(three(), {Evidence.EXPERTS: costs[:1]}))[0]
    assert (check.passed, check.subtask, check.figures["ms_per_frame"]) == (False, 1, 34.0)
    assert Cost(0.01).judge(Case(three(), {Evidence.EXPERTS: costs[:1]}, 0.02))[0].passed, "two steps take 40 ms"
    assert check.message.startswith("too slow: sub-task 2 ('open the door') takes 34 ms a frame; 10 ms may be")


class Billed(Box):
    """A box whose process takes one, two and four milliseconds for a frame of the three sub-tasks."""

    def judge(self, frames, initials, subtasks, rows=None, episodes=None):
        judged = super().judge(frames, initials, subtasks, rows, episodes)
        return replace(judged, seconds=float(np.array([0.001, 0.002, 0.004])[subtasks].sum()))


def test_what_a_sub_task_costs_is_told_from_questions_about_several():
    replay = Replay(three(), list(evidence("DoorKey-6x6")[Evidence.EXPERTS])[:20])
    with Billed(three()) as box:
        replay.run([box])
    for episode in replay.episodes():
        np.testing.assert_allclose(episode.cost, [0.001, 0.002, 0.004])


def test_costs_are_fitted_without_a_negative_one():
    from scipy.optimize import nnls

    rng, changed = np.random.default_rng(0), 0
    for _ in range(50):
        counts = rng.integers(0, 9, (12, 4)).astype(float) * [1, 1, 1, 0]
        seconds = counts @ [1e-5, 3e-4, 0.0, 0.0] + rng.uniform(0, 1e-3, 12)
        costs = fitted(counts, seconds)
        np.testing.assert_allclose(costs, nnls(counts, seconds)[0], atol=1e-9)
        assert costs[3] == 0.0, "it was not asked about"
        changed += bool((np.linalg.lstsq(counts, seconds)[0] < -1e-12).any())
    assert changed > 5


def test_a_box_says_what_processor_time_its_process_took():
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    with Box(three(key="def progress(frame, initial):\n    return float(sum(range(200_000)) < 0)\n")) as box:
        some, none = (box.judge(frames[:count], frames[:count], np.zeros(count, np.intp)) for count in (4, 0))
    assert some.seconds > 0
    assert none.seconds == 0


def test_what_random_play_solves_by_luck_completes_a_right_program():
    late, early = Track(0, (0.0,) * 20 + (1.0,)), Track(0, (0.0,) * 5 + (1.0,))
    lucky, idle = played(late, solved=True), played(Track(0, (0.0,) * 21))
    alone, rule = program(GOAL), RandomCompletion(limit=0.1, fewest=10)

    check = rule.judge(Case(alone, {Evidence.RANDOMS: [lucky] * 4 + [idle] * 6}))[0]
    assert check.passed
    assert (check.figures["completed"], check.figures["solved"], check.figures["share"]) == (4, 4, 0.0)
    assert "4 of 10 episodes of random play" in check.message
    assert "4 of them as they solve the task" in check.message

    for wrong in (played(early, solved=True), played(late)):  # before it is solved, and without
        check = rule.judge(Case(alone, {Evidence.RANDOMS: [lucky] * 4 + [wrong] * 2 + [idle] * 4}))[0]
        assert not check.passed
        assert (check.figures["share"], len(check.frames)) == (0.2, 2)


def test_a_sub_task_that_everybody_gets_done_is_an_ornament():
    two = RewardProgram(subtasks=three().subtasks[:2])
    moved = [played(Track(0, (0.0, 1.0)), Track(1, (0.0,) * 19)) for _ in range(60)]
    experts = [played(Track(0, (0.0, 1.0)), Track(1, (0.0, 1.0)), steps=2, solved=True)]
    (check,) = Needed().judge(Case(two, {Evidence.EXPERTS: experts, Evidence.RANDOMS: moved}))
    assert (check.passed, check.figures["ornaments"]) == (True, [1.0])
    assert "an ornament" in check.message
    assert "sub-task 1 ('take the key')" in check.message
    stays = [played(Track(0, (0.0,) * 20), Track()) for _ in range(20)]
    (check,) = Needed().judge(Case(two, {Evidence.EXPERTS: experts, Evidence.RANDOMS: moved + stays}))
    assert (check.passed, check.figures["ornaments"]) == (True, [])


def test_the_actions_that_experts_take_most_are_those_that_move():
    assert usual_actions(
        evidence("DoorKey-6x6")[Evidence.EXPERTS]
        and [replace(played(), actions=one.actions) for one in evidence("DoorKey-6x6")[Evidence.EXPERTS]]
    ) <= {0, 1, 2}
    assert usual_actions([replace(played(), actions=np.zeros((20, 1)))]) == frozenset()
    walked = [np.array([2] * length + [0] * turns + [5, 5]) for length, turns in ((4, 0), (5, 1), (5, 2), (6, 3))]
    assert usual_actions([replace(played(), actions=each) for each in walked]) == {0, 2}, "doors are opened, twice each"


def test_experts_that_go_one_way_say_nothing_about_degrees():
    alike = [played(Track(0, (0.0, 0.3, 0.6, 1.0)), steps=3, source="expert", solved=True)] * 60
    one = RewardProgram(subtasks=three().subtasks[:1])
    (check,) = Degrees(Evidence.EXPERTS).judge(Case(one, {Evidence.EXPERTS: alike}))
    assert (check.passed, check.figures["graded"], check.figures["compared"]) == (True, 1, 0)
    assert "differ too little to say" in check.message


def test_concordance_is_that_of_the_pairs():
    """Nearer means more in one of two pairs; a timer shows the same wherever elapsed time is the same."""
    soon = [played(Track(0, (0.0, value, 1.0))) for value in (0.4, 0.2)]
    late = [played(Track(0, (0.0, 0.3, *[0.5] * 18)))]
    found = concordance([*soon, *late], 0)
    assert found.pairs == 4
    assert found.share == pytest.approx((0.5 + 0.5 + 1 + 0) / 4)
    assert found.worst[0][0] == pytest.approx(0.1)
    timer = [played(Track(0, (0.1, 0.2, 0.3, 1.0))), played(Track(0, (0.1, 0.2, 0.3, 0.4, 0.5)))]
    assert concordance(timer, 0).share == 0.5


def test_progress_that_tells_who_is_nearer_is_paid_no_more_for_nothing():
    """Of the distance to the key, graded up to 0.9, random play earns too much; a third of it is little enough."""
    few = some("DoorKey-6x6", Evidence.EXPERTS, Evidence.RANDOMS)
    for cap, passes in ((0.3, True), (0.9, False)):
        near = RewardProgram(subtasks=(SubTask(name="key", code=zoo.nearer("key", "key", cap)),))
        with Box(near) as box:
            replay = Replay(near, list(few[Evidence.RANDOMS]))
            replay.run([box])
        (check,) = ForNothing(Evidence.RANDOMS, CONFIG.max_part).judge(
            Case(near, {Evidence.RANDOMS: [*replay.episodes()]})
        )
        assert check.passed == passes
    assert "Pay only for what brings it nearer to being done, and at most" in check.message


def test_what_degrees_call_nearness_in_a_film_may_pay_the_policy():
    """A film is compared by the same share of pairs by both rules: 0.55 tells who is nearer, 0.45 does not."""
    one = RewardProgram(subtasks=three().subtasks[:1])
    late = [played(Track(0, (0.0, 0.3, *[0.5] * 18)))] * 10
    for more, tells in ((6, True), (4, False)):
        soon = [played(Track(0, (0.0, 0.4 if at < more else 0.2, 1.0))) for at in range(10)]
        case = Case(one, {Evidence.POLICY: [*soon, *late]})
        (degrees,), (paid,) = (
            rule.judge(case) for rule in (Degrees(Evidence.POLICY), ForNothing(Evidence.POLICY, 0.02))
        )
        assert (degrees.passed, paid.passed) == (tells, tells)
        assert paid.figures["share"] == pytest.approx(0.25)


def test_where_nothing_may_be_paid_in_part_a_program_that_pays_nothing_passes():
    for shown, passes in (((0.0, 0.0), True), ((0.0, 0.1), False)):
        case = Case(program(GOAL), {Evidence.RANDOMS: [played(Track(0, shown))]})
        assert ForNothing(Evidence.RANDOMS, 0.0).judge(case)[0].passed == passes


def test_frames_that_paid_for_nothing_are_those_that_the_share_counts():
    """Shown done in a single frame a sub-task that has to last earns nothing there."""
    held = RewardProgram(subtasks=(SubTask(name="land", code=GOAL, hold=3),))
    tracks = [Track(0, (0.0, 0.2, 1.0, 0.4, 0.1), hold=3), Track(0, (0.0, 1.0, 0.0), hold=3)]
    (check,) = ForNothing(Evidence.RANDOMS, 0.02).judge(Case(held, {Evidence.RANDOMS: [*map(played, tracks)]}))
    assert check.figures["share"] == pytest.approx(0.2)
    assert [(one.step, one.got) for one in check.frames] == [(3, "0.4, and never done")]


def test_every_share_of_episodes_that_is_judged_has_its_exact_bound():
    one, two = program(GOAL), RewardProgram(subtasks=three().subtasks[:2])
    done, stuck, at_once = (Track(0, shown) for shown in ((0.0, 1.0), (0.0, 0.0), (1.0,)))
    experts = [played(done, steps=1, source="expert", solved=True)] * 4
    case = Case(one, {Evidence.EXPERTS: experts, Evidence.RANDOMS: [played(stuck)] * 6})
    failing = Case(one, {Evidence.EXPERTS: [*experts, played(stuck, source="expert")]})
    already = Case(one, {Evidence.EXPERTS: [*experts, played(at_once, source="expert")]})
    paid = Case(one, {Evidence.RANDOMS: [played(Track(0, (0.0, 0.1)))] * 2 + [played(stuck)] * 8})
    first = [played(done, Track(1, (0.0,)))] * 3 + [played(stuck, Track())]
    for rule, judged, bounds in (
        (ExpertsComplete(), case, exact_bound(0, 4)),
        (ExpertsComplete(), failing, exact_bound(1, 5)),
        (AlreadyDone(), case, exact_bound(0, 10)),
        (AlreadyDone(), already, exact_bound(1, 5)),
        (ForNothing(Evidence.RANDOMS, 1.0), paid, exact_bound(2, 10)),
        (Needed(), Case(two, {Evidence.EXPERTS: first, Evidence.RANDOMS: []}), [exact_bound(1, 4)]),
    ):
        (check,) = rule.judge(judged)
        assert check.figures.get("bounds", check.figures.get("bound")) == bounds, check
        assert bounded(check.name, check.figures), "as program show, diff and the report say it"


def test_an_episode_that_ends_as_it_completes_may_have_been_about_to_solve_the_task():
    """A hundred steps leave a program three frames; of twenty it has to see the very one."""
    rule, alone = OnlySolved(Evidence.CUT, 0.0), program(GOAL)
    unsolved = [(120, 2, False, True), (120, 3, False, False), (20, 0, False, False)]
    solved = [(20, 0, True, True), (20, 1, True, False), (120, 3, True, True), (120, 4, True, False)]
    for steps, ahead, success, passes in (*unsolved, *solved):
        done = played(Track(0, (0.0,) * (steps - ahead) + (1.0,)), steps=steps, source="cut", solved=success)
        assert rule.judge(Case(alone, {Evidence.CUT: [done]}))[0].passed == passes, (steps, ahead, success)


def test_what_every_expert_undoes_may_be_allowed_to_experts_alone():
    climbs = Track(0, (0.0, 1.0), (1.0, 0.0))
    case = Case(program(GOAL), {Evidence.EXPERTS: [played(climbs, source="expert")] * 5, Evidence.MIXED: []})
    assert not Lasting(0.1).judge(case)[0].passed
    (check,) = Lasting(0.1, by_experts=1.0).judge(case)
    assert (check.passed, check.figures["limit"], check.figures["limit_experts"]) == (True, 0.1, 1.0)
    steps = np.zeros(20, dtype=np.int64)
    others = [replace(played(climbs), actions=steps)] * 5
    (check,) = Lasting(0.1, by_experts=1.0).judge(Case(case.program, {**case.episodes, Evidence.RANDOMS: others}))
    assert (check.passed, check.figures["limit"]) == (False, 0.1)


def test_what_an_idle_action_undoes_was_about_to_happen_though_experts_hardly_take_it():
    experts = [replace(played(Track(0, (0.0, 1.0))), actions=np.full(20, 2))] * 5
    turned = [replace(played(Track(0, (0.0, 1.0), (0.0,))), actions=np.array([2] + [0] * 19))] * 5
    case = Case(program(GOAL), {Evidence.EXPERTS: experts, Evidence.CUT: turned})
    for idle, passes, followed in (((), True, [0.0]), ((0, 1), False, None)):
        (check,) = Lasting(0.1, idle=idle).judge(case)
        assert (check.passed, check.figures.get("followed")) == (passes, followed)
    assert by_default(get_task("DoorKey-6x6"), CodeConfig).verify.idle == (0, 1)


def test_where_no_episode_goes_on_after_a_sub_task_it_is_not_said_to_last():
    ends, goes_on = played(Track(0, (0.0, 1.0))), played(Track(0, (0.0, 1.0), (1.0, 1.0)))
    for episodes, followed, said in (
        (
            [ends] * 2,
            [0.0],
            "no episode goes on after what got done in a way that could undo it, so none shows whether it lasts",
        ),
        ([ends, goes_on], [1.0], "what got done stays done, where episodes go on after it: sub-task 1 in 1"),
    ):
        (check,) = Lasting(0.1).judge(Case(program(GOAL), {Evidence.EXPERTS: episodes}))
        assert (check.passed, check.figures["followed"], check.message) == (True, followed, said)
