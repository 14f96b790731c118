"""The whole loop against a server that speaks the protocol and mends its answers from what it is told."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from carl.config import SynthesisConfig, VlmConfig
from carl.errors import VlmError
from carl.program import RewardProgram, SubTask
from carl.synthesis.search import SECOND_LOOKS, VERDICTS, Found, HeldOutGate, SearchGate, search
from carl.synthesis.shown import Examples
from carl.synthesis.tried import Budget, Candidate, HeldOut, Proposal, Tried
from carl.synthesis.vlm_proposer import VlmProposer
from carl.verification import Check, VerificationReport
from carl.vlm.client import VlmClient, connect
from carl.vlm.exchange import Usage
from tests.fakes.episodes import episode
from tests.fakes.scripted_vlm import Asked, Script, ScriptedVlm, Status, completion, scripted

BLACK, GREY = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 9, np.uint8)
EXAMPLES = Examples([episode(BLACK, GREY), episode(BLACK, GREY, seed=1)])
NAME = "Task: name the sub-tasks."


Judge = Callable[[RewardProgram], VerificationReport]


def refusal(program: RewardProgram, blamed: tuple[int | None, ...], told: str) -> VerificationReport:
    """Blames one sub-task, or the plan, or nobody."""
    failed = [
        Check(name="threshold", passed=False, subtask=index, message=f"it misses a threshold: {told} [{index}]")
        for index in blamed
    ]
    return VerificationReport(
        program_id=program.id,
        accepted=not blamed,
        checks=(Check(name="static_policy", passed=True, message="fine"), *failed),
        **{"episodes": {"expert": 1, "random": 1}, "frames": 9, "seconds": 0.0},
    )


def passes(program: RewardProgram, number: int = 1) -> VerificationReport:
    return refusal(program, (), "")


def source(value: str) -> str:
    return f"def progress(frame, initial):\n    return {value}\n"


def fenced(value: str) -> str:
    return f"Here:\n```python\n{source(value)}```"


def wants(*values: str, where: str = "") -> Judge:
    """A gate that accepts a program whose sub-tasks return these values, and tells which threshold it missed."""

    def verify(program: RewardProgram) -> VerificationReport:
        if len(program.subtasks) != len(values):
            return refusal(program, (None,), f"there should be {len(values)} sub-tasks")
        pairs = zip(program.subtasks, values, strict=True)
        wrong = [index for index, (each, value) in enumerate(pairs) if each.code != source(value)]
        return refusal(program, tuple(wrong), f"expected {values[wrong[0]]}{where}" if wrong else "")

    return verify


@dataclass
class Run:
    result: Found
    candidates: list[Candidate]
    server: ScriptedVlm
    usage: Usage

    @property
    def tasks(self) -> list[str]:
        return [asked.task for asked in self.server.asked]


def proposer(client: VlmClient, samples: int) -> VlmProposer:
    return VlmProposer("do it", EXAMPLES, client, SynthesisConfig(samples=samples))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    def run(
        script: Script,
        verify: Judge,
        samples: int = 4,
        max_requests: int = 10,
        held_out: Callable[[RewardProgram, int], VerificationReport] = passes,
    ) -> Run:
        seen: dict[int, Candidate] = {}
        verified: list[str] = []

        def verify_once(program: RewardProgram) -> VerificationReport:
            assert program.id not in verified
            verified.append(program.id)
            return verify(program)

        with scripted(script) as server:
            settings = VlmConfig(base_url=server.base_url, timeout_s=5, max_retries=0)
            with connect(settings, tmp_path) as client:
                gate = SearchGate(verify_once, HeldOutGate(held_out))
                result = search(
                    [proposer(client, samples)],
                    gate,
                    Budget(calls=max_requests),
                    lambda candidate: seen.update({candidate.number: candidate}),
                )
        candidates = list(seen.values())
        assert [each.program.id for each in candidates] == verified
        assert result.candidates == tuple(candidates)
        return Run(result, candidates, server, client.usage)

    return run


def test_the_first_choice_passes(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        if asked.task == NAME:
            return ["1. a\n2. b", "1. c", "1. A \n2. b - sentence", "1. c"][: asked.n]
        return [fenced("0.0"), fenced("1.0"), fenced("1.0"), fenced("0.0")]

    done = run(script, wants("0.0", "0.0"))
    assert done.result.program is not None
    assert [subtask.name for subtask in done.result.program.subtasks] == ["a", "b"]
    assert done.result.stopped == "accepted"
    assert done.result.spent.calls == 3
    assert done.usage.calls == 3
    assert done.usage.samples == 12
    assert done.tasks[1:] == [
        f"Task: write the program for sub-task {k} of 2: {name}." for k, name in ((1, "a"), (2, "b"))
    ]
    assert [len(asked.images) for asked in done.server.asked] == [4, 4, 4]


def test_the_next_sample_is_tried_where_the_report_blames(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        return ["1. a\n2. b"] if asked.task == NAME else [fenced(value) for value in ("0.1", "0.1", "0.2", "0.3")]

    done = run(script, wants("0.1", "0.3"))
    assert [each.program.subtasks[1].code for each in done.candidates] == [source(x) for x in ("0.1", "0.2", "0.3")]
    assert {each.program.subtasks[0].code for each in done.candidates} == {source("0.1")}
    assert [each.number for each in done.candidates] == [1, 2, 3]
    assert done.result.spent.calls == 3


def test_a_program_is_mended_from_the_evidence(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        """Writes 0.5 for everything until it is told what was expected."""
        if asked.task == NAME:
            return ["1. a\n2. b"]
        told = asked.text.partition("What was found")[2].partition("expected ")[2].split(" ")[0]
        if told:
            assert source("0.5") in asked.text
        return [fenced(told or "0.5")]

    done = run(script, wants("0.5", "0.75"))
    assert done.result.program is not None
    assert done.result.program.subtasks[1].code == source("0.75")
    assert done.tasks == [
        NAME,
        "Task: write the program for sub-task 1 of 2: a.",
        "Task: write the program for sub-task 2 of 2: b.",
        "Task: write the program for sub-task 2 of 2: b.",
    ]
    assert "expected 0.75 [1]" in done.server.asked[-1].text


def test_functions_that_fail_for_one_reason_are_mended_in_one_request(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        if asked.task == NAME:
            return ["1. a\n2. b\n3. c"]
        if "What was found" not in asked.text:
            return [fenced("0.1")]
        assert "# sub-task 3\n" + source("0.1") in asked.text, "all functions are shown"
        return ["\n".join(f"```python\n# sub-task {number}, mended\n{source('0.7')}```" for number in (1, 3))]

    done = run(script, wants("0.7", "0.1", "0.7"))
    assert done.result.program is not None
    assert [each.code for each in done.result.program.subtasks] == [source(x) for x in ("0.7", "0.1", "0.7")]
    assert done.tasks[4:] == ["Task: write the program for sub-task 1 of 3: a."]


def test_other_sub_tasks_are_asked_for_where_the_model_says_that_one_cannot_be_seen(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        if "What was found when it was checked" in asked.text:
            return ["UNFIT: it looks the same before and after"]
        if asked.task == NAME:
            return [
                "1. b" if "no frame shows whether this sub-task is done: 'it looks the same" in asked.text else "1. a"
            ]
        return [fenced("0.5" if asked.task.endswith("a.") else "0.75")]

    done = run(script, wants("0.75"), samples=1)
    write = "Task: write the program for sub-task 1 of 1: "
    assert done.tasks == [NAME, f"{write}a.", f"{write}a.", NAME, f"{write}b."]
    assert done.result.program is not None


def test_later_functions_see_earlier_ones_and_may_ask_to_be_held(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        if asked.task == NAME:
            return ["1. a\n2. b"]
        first = asked.task.endswith("a.")
        assert (source("0.25") in asked.text) is not first
        return [fenced("0.25") if first else f"```python\nHOLD = 3\n\n\n{source('1.0')}```"]

    done = run(script, passes)
    assert done.result.program is not None
    assert [each.hold for each in done.result.program.subtasks] == [1, 3]


def test_a_plan_is_mended_from_the_evidence(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        if asked.task != NAME:
            return [fenced("1.0")]
        if "there should be 3 sub-tasks [None]" not in asked.text:
            return ["1. a"]
        assert "The earlier answer:\n\n1. a\n" in asked.text
        return ["1. a\n2. b\n3. c"]

    done = run(script, wants("1.0", "1.0", "1.0"))
    assert done.result.program is not None
    assert [len(each.program.subtasks) for each in done.candidates] == [1, 3]


def test_after_a_repair_that_brings_nothing_the_next_plan_is_tried(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        if asked.task == NAME:
            return ["1. b", "1. a", "1. a"]
        repair = "misses a threshold" in asked.text
        return [fenced("1.0" if asked.task.endswith("b.") else "0.2" if repair else "0.1")]

    done = run(script, wants("1.0"), samples=3)
    assert [each.program.subtasks[0].code for each in done.candidates] == [
        source(value) for value in ("0.1", "0.2", "1.0")
    ]
    assert done.result.spent.calls == 4


def test_repairs_go_on_for_as_long_as_requests_and_new_answers_last(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        requests.append(asked)
        return ["1. a"] if asked.task == NAME else [fenced(f"0.{len(requests)}")]

    requests: list[Asked] = []
    done = run(script, wants("0.9"), samples=1)
    assert done.result.program == of_plan("a", "0.9")
    assert [asked.task == NAME for asked in requests] == [True, False, False, False, True, True, False, False, False]


def test_what_got_furthest_is_repaired_not_what_came_last(run: Callable[..., Run]) -> None:
    """Of two samples the first passes one check more."""

    def verify(program: RewardProgram) -> VerificationReport:
        report = wants("1.0")(program)
        passed = Check(name="more", passed=True, message="fine")
        return report.model_copy(update={"checks": (passed, *report.checks)}) if "0.1" in str(program) else report

    def script(asked: Asked) -> list[str]:
        if asked.task == NAME:
            return ["1. a"]
        if "misses a threshold" in asked.text:
            assert source("0.1") in asked.text
            return [fenced("1.0")]
        return [fenced("0.1"), fenced("0.2")]

    done = run(script, verify, samples=2)
    assert [each.program for each in done.candidates] == [of_plan("a", value) for value in ("0.1", "0.2", "1.0")]


def test_of_several_plans_the_one_that_got_further_is_repaired(run: Callable[..., Run]) -> None:
    """Both plans fail: of the first no sub-task holds, of the second the last one alone does not."""

    def script(asked: Asked) -> list[str]:
        if asked.task == NAME:
            return ["1. a\n2. b", "1. c\n2. d", "1. a\n2. b"]
        if asked.task.endswith("d."):
            return [fenced("0.4" if "misses a threshold" in asked.text else "0.9")]
        return [fenced("0.3" if asked.task.endswith("c.") else f"0.{len(asked.text)}")]

    done = run(script, wants("0.3", "0.4"), samples=3)
    assert done.result.program is not None
    assert [each.name for each in done.result.program.subtasks] == ["c", "d"]
    assert [task[-2:] for task in done.tasks[1:]] == ["a.", "b.", "a.", "c.", "d.", "d."]


def test_a_model_with_nothing_new_to_say_is_asked_once(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        if asked.task == NAME:
            return ["1. a", "1. a", "1. b"]
        return [fenced("1.0" if asked.task.endswith("b.") else "0.0")]

    done = run(script, wants("1.0"))
    assert done.result.program is not None
    assert done.tasks.count("Task: write the program for sub-task 1 of 1: a.") == 2


def test_the_same_step_at_the_same_place_is_written_once(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        if asked.task == NAME:
            return ["1. a\n2. goal", "1. b\n2. goal"]
        return [fenced("0.0")] if asked.task.endswith("a.") else [fenced("1.0")]

    done = run(script, wants("1.0", "1.0"))
    assert done.result.program is not None
    assert sum("goal" in task for task in done.tasks) == 1


def test_other_samples_are_tried_where_nobody_is_to_blame(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        return ["1. a\n2. b"] if asked.task == NAME else [fenced("0.0"), fenced("1.0")]

    def verify(program: RewardProgram) -> VerificationReport:
        wanted = [source("1.0"), source("0.0")]
        return refusal(program, () if [each.code for each in program.subtasks] == wanted else (None,), "too easy")

    done = run(script, verify)
    assert done.result.program is not None
    assert len(done.candidates) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I see a red triangle in a grey room.", "no Python program"),
        ("```python\ndef progress(frame, initial):\n    return", "not closed"),
        ("```javascript\nfunction progress(frame) { return 1 }\n```", "javascript"),
        ("```python\ndef check(frame, initial):\n    return 1.0\n```", "defines check"),
    ],
)
def test_answers_that_are_no_program_are_recorded_rejections(run: Callable[..., Run], answer: str, reason: str) -> None:
    done = run(lambda asked: ["1. a"] if asked.task == NAME else [answer] * asked.n, wants("1.0"))
    assert done.result.program is None
    assert done.candidates == []
    assert reason in done.result.rejections[0].reason
    assert done.result.rejections[0].prompt.startswith("write/")
    assert reason in done.server.asked[2].text
    assert done.result.stopped == "the model names no further plan that could be tried"
    assert done.result.spent.calls <= 6


def test_a_model_that_learns_its_form_from_the_rejection(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        if asked.task == NAME:
            return ["1. a"] if "no numbered sub-tasks" in asked.text else ["I see a room."]
        return [fenced("1.0")] if "in javascript" in asked.text else ["```javascript\nlet x = 1\n```"]

    done = run(script, wants("1.0"), samples=1)
    assert done.result.program is not None
    assert [each.request for each in done.result.rejections] == [1, 3]


@pytest.mark.parametrize(
    ("plan", "program", "outcome"),
    [
        ("I see a room.", "", "8 of 8 .* all for one reason: no numbered sub-tasks in the answer, which is prose"),
        ("I am sorry, I cannot.", "", "no numbered sub-tasks in the answer, which is a refusal: 'I am sorry"),
        ("1. a", "It returns 1.", "all for one reason: no Python program in the answer, which is prose"),
        ("1. a", "```python\ndef progress(frame", "cut off.*raise vlm.max_tokens"),
    ],
)
def test_where_nothing_was_verified_the_outcome_says_why(
    run: Callable[..., Run], plan: str, program: str, outcome: str
) -> None:
    done = run(lambda asked: [plan if asked.task == NAME else program], wants("1.0"))
    assert done.candidates == []
    assert "verif" not in done.result.outcome
    assert re.search(outcome, done.result.outcome)
    assert done.result.outcome.startswith("there was no program to try: the model names no further")


@pytest.mark.parametrize("task", ["plan", "program"])
def test_an_answer_that_was_cut_off_is_not_used_and_says_what_to_raise(run: Callable[..., Run], task: str) -> None:
    def script(asked: Asked) -> list[str] | Status:
        if (asked.task == NAME) != (task == "plan"):
            return ["1. a"]
        made = completion(["1. a\n2. b" if task == "plan" else fenced("1.0")] * asked.n)
        for choice in made["choices"]:
            choice["finish_reason"] = "length"
        return Status(200, made)

    done = run(script, wants("1.0"))
    assert done.candidates == []
    assert "cut off after vlm.max_tokens=4096 tokens; raise vlm.max_tokens" in done.result.outcome


def test_the_outcome_names_the_check_that_most_programs_failed(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        return ["1. a"] if asked.task == NAME else [fenced("0.0"), "prose", fenced("0.5"), "prose"]

    outcome = run(script, wants("1.0")).result.outcome
    assert "no program survived verification" in outcome
    assert "2 of 2 programs failed at threshold;" in outcome
    assert "could not be used, all for one reason: no Python program" in outcome


def test_prose_only_ends_with_a_reason(run: Callable[..., Run]) -> None:
    done = run(lambda _: ["I am a language model."], wants("1.0"))
    assert done.result.program is None
    assert done.result.spent.calls == 2
    assert "no numbered sub-tasks" in done.result.rejections[0].reason


def test_the_budget_is_kept(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        return [f"1. {len(asked.text)}"] if asked.task == NAME else [fenced(f"0.{len(asked.text)}")]

    done = run(script, lambda program: refusal(program, (0,), "wrong " * len(program.subtasks[0].code)), max_requests=5)
    assert done.result.program is None
    assert done.result.spent.calls == len(done.server.asked) == 5
    assert done.result.stopped == "all 5 requests are used up"


def test_a_stopped_synthesis_goes_on_without_asking_again(tmp_path: Path) -> None:
    dead = False

    def script(asked: Asked) -> list[str] | Status:
        if asked.task == NAME:
            return ["1. a\n2. b"]
        return Status(500) if dead and asked.task.endswith("b.") else [fenced("1.0")]

    gate = SearchGate(wants("1.0", "1.0"), HeldOutGate(passes))
    with scripted(script) as server:
        settings = VlmConfig(base_url=server.base_url, timeout_s=5, max_retries=0)
        dead = True
        with connect(settings, tmp_path) as client, pytest.raises(VlmError, match="failed"):
            search([proposer(client, 2)], gate, Budget(calls=10))
        assert len(server.asked) == 3
        dead = False
        with connect(settings, tmp_path) as client:
            result = search(
                [proposer(client, 2)], SearchGate(wants("1.0", "1.0"), HeldOutGate(passes)), Budget(calls=10)
            )
        assert len(server.asked) == 4
    assert result.program is not None
    assert client.usage.calls == 3


def test_held_out_episodes_are_evidence_as_any_other(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        if asked.task == NAME:
            return ["1. a\n2. b"]
        return [fenced("0.75" if "expected 0.75 on fresh episodes [1]" in asked.text else "0.5")]

    def judge_held_out(program: RewardProgram, number: int) -> VerificationReport:
        sets.append(number)
        return wants("0.5", "0.75", where=" on fresh episodes")(program)

    sets: list[int] = []
    done = run(script, passes, held_out=judge_held_out)
    assert done.result.program is not None
    assert done.result.program.subtasks[1].code == source("0.75")
    assert sets == [1, 1, 2], "a set that refused a program accepts none"
    assert [each.accepted for each in done.candidates] == [False, True]
    assert [each.report.accepted for each in done.candidates] == [True, True]
    assert [(each.cost.calls, each.cost.tokens) for each in done.candidates] == [(3, 420), (1, 140)]
    assert [each.spent.calls for each in done.candidates] == [3, 4]


def test_a_set_that_refused_a_program_accepts_none(run: Callable[..., Run]) -> None:
    """Each program that survives all sets so far is judged on one more; what an older set refuses takes none."""
    judged: list[tuple[int, str]] = []

    def held_out(program: RewardProgram, number: int) -> VerificationReport:
        code = program.subtasks[0].code
        judged.append((number, code.split()[-1]))
        return refusal(program, (0,) if float(code.split()[-1]) < number / 10 + 0.05 else (), f"set {number}")

    def script(asked: Asked) -> list[str]:
        return ["1. a"] if asked.task == NAME else [fenced(f"0.{digits}") for digits in (11, 12, 16, 13, 26, 9)]

    done = run(script, passes, held_out=held_out, samples=6)
    assert done.result.program == done.candidates[-1].program
    assert judged == [
        *((1, "0.11"), (1, "0.12")),
        *((1, "0.16"), (2, "0.16")),
        (1, "0.13"),
        *((1, "0.26"), (2, "0.26"), (3, "0.26")),
        *((1, "0.9"), (2, "0.9"), (3, "0.9"), (4, "0.9")),
    ]
    assert done.candidates[-1].held_out == HeldOut(4, passes(done.candidates[-1].program))


def test_as_many_refusals_as_there_are_sets_end_the_search() -> None:
    def refuses(program: RewardProgram, number: int) -> VerificationReport:
        """The set of the program's own number, and all later ones."""
        return refusal(program, (0,) if program.subtasks[0].name <= f"1.{number:02d}" else (), f"set {number}")

    programs = [of(f"1.{number:02d}") for number in range(1, VERDICTS + 2)]
    found = search([Listed("list", *programs)], SearchGate(passes, HeldOutGate(refuses)), Budget(calls=0))
    assert found.program is None
    assert found.stopped == "10 sets of fresh episodes refused programs that had survived all others"
    held_out = [each.held_out for each in found.candidates]
    assert [each and each.number for each in held_out] == [*range(1, VERDICTS + 1), None]
    assert found.outcome.endswith("; 10 of 11 programs failed at threshold")


def test_a_program_that_was_refused_before_is_refused_unseen() -> None:
    one, two = (of(f"0.{digit}") for digit in (1, 2))
    refused = HeldOut(1, refusal(one, (0,), "then"))
    gate = HeldOutGate(passes, [refused])
    assert gate.judge(one) == refused
    assert gate.judge(two) == HeldOut(2, passes(two))


def of(*values: str) -> RewardProgram:
    return RewardProgram(subtasks=tuple(SubTask(name=value, code=source(value)) for value in values))


def of_plan(name: str, value: str) -> RewardProgram:
    return RewardProgram(subtasks=(SubTask(name=name, code=source(value)),))


@dataclass
class Listed:
    """Proposes the programs of a list."""

    name: str
    exhausted: str
    programs: tuple[RewardProgram, ...]

    def __init__(self, name: str, *programs: RewardProgram) -> None:
        self.name, self.exhausted, self.programs = name, f"the {name} is at its end", programs

    def propose(self, tried: Tried) -> Iterator[Proposal | None]:
        for program in self.programs:
            yield None
            yield Proposal(program)
            assert tried.verdict(program)


class Pairs:
    """Proposes all pairs of sub-tasks of the programs that were tried. Asks nobody."""

    name = "pairs"
    exhausted = "no further pair is to be had"

    def propose(self, tried: Tried) -> Iterator[Proposal]:
        single = [each.program.subtasks[0] for each in tried.candidates if len(each.program.subtasks) == 1]
        for first, second in combinations(single, 2):
            yield Proposal(RewardProgram(subtasks=(first, second)))


def test_cheaper_proposers_are_asked_anew_before_a_dearer_one_spends_anything() -> None:
    judged: list[str] = []

    def verify(program: RewardProgram) -> VerificationReport:
        judged.append("+".join(subtask.name for subtask in program.subtasks))
        return wants("0.2", "0.3")(program)

    dear = Listed("list", of("0.1"), of("0.2"), of("0.1"), of("0.3"), of("0.4"))
    found = search([Pairs(), dear], SearchGate(verify, HeldOutGate(passes)), Budget(calls=0))
    assert judged == ["0.1", "0.2", "0.1+0.2", "0.3", "0.1+0.3", "0.2+0.3"]
    assert found.program == of("0.2", "0.3")
    assert found.spent.calls == found.spent.tokens == 0


def test_a_search_without_success_names_what_every_proposer_lacked() -> None:
    found = search([Pairs(), Listed("list", of("0.1"))], SearchGate(wants("1"), HeldOutGate(passes)), Budget(calls=0))
    assert found.stopped == "no further pair is to be had; the list is at its end"


class Spender:
    """Pays for each program, in requests, tokens and money."""

    name, exhausted = "spender", "never"

    def propose(self, tried: Tried) -> Iterator[Proposal]:
        for number in range(10, 20):
            tried.spend()
            tried.pay(tokens=100, money=0.25)
            yield Proposal(of(f"{number}.0"))


@pytest.mark.parametrize(
    ("budget", "stopped"),
    [
        (Budget(calls=2), "all 2 requests are used up"),
        (Budget(calls=9, tokens=101), "200 tokens are used up, of 101"),
        (Budget(calls=9, money=0.5), "the money is used up: 0.5 of 0.5"),
    ],
)
def test_all_proposers_share_one_budget_of_several_kinds(budget: Budget, stopped: str) -> None:
    gate = SearchGate(wants("none"), HeldOutGate(passes))
    proposers = [Listed("first", of("0.1")), Spender(), Listed("last", of("0.2"))]
    found = search(proposers, gate, budget)
    assert [each.program.subtasks[0].name for each in found.candidates] == ["0.1", "10.0", "11.0", "0.2"]
    assert [each.proposer for each in found.candidates] == ["first", "spender", "spender", "last"]
    assert (found.spent.calls, found.spent.tokens, found.spent.money) == (2, 200, 0.5)
    assert found.stopped == f"the first is at its end; {stopped}; the last is at its end", "it needs no requests"


def test_seconds_of_earlier_attempts_count() -> None:
    gate = SearchGate(wants("none"), HeldOutGate(passes))
    found = search([Listed("list", of("0.1"))], gate, Budget(calls=9, seconds=60.0), before=60.0)
    assert (found.candidates, found.stopped) == ((), "all 60 seconds of the search are used up")
    assert found.spent.seconds >= 60


def random_play(program: RewardProgram, done: float, accepted: bool = True, in_part: float = 0.0) -> VerificationReport:
    figures = {"done_per_subtask": [done], "episodes": 200}
    checks = (
        Check(name="random_completion", passed=accepted, message="random play", figures=figures),
        Check(name="for_nothing_random", passed=True, message="in part", figures={"shares": [in_part]}),
    )
    return refusal(program, () if accepted else (None,), "").model_copy(update={"checks": checks})


@pytest.mark.parametrize(("done", "in_part", "notes"), [(1.0, 0.0, 1), (2.0, 0.0, 0), (1.0, 0.01, 0)])
def test_an_accepted_program_by_which_random_play_hardly_earns_is_questioned(
    done: float, in_part: float, notes: int
) -> None:
    gate = SearchGate(lambda program: random_play(program, done, in_part=in_part), HeldOutGate(passes))
    found = search([Listed("list", of("0.1"))], gate, Budget(calls=0))
    assert found.program is not None
    assert len(found.notes) == notes
    assert all("gets done in 1 of 200 episodes of random play" in note for note in found.notes)


def test_after_a_weak_program_a_better_one_is_looked_for_and_else_it_is_kept() -> None:
    def judge(program: RewardProgram) -> VerificationReport:
        value = float(program.subtasks[0].name)
        return refusal(program, (0,), "no") if value > 2 else random_play(program, 0.0 if value < 1 else 90.0)

    weak, strong, others = of("0.1"), of("1.5"), [of(f"{number}.5") for number in range(2, 20)]
    gate = SearchGate(judge, HeldOutGate(passes))
    found = search([Listed("list", weak, others[0], strong, others[1])], gate, Budget(calls=0))
    assert (found.program, found.stopped, found.notes) == (strong, "accepted", ())
    found = search([Listed("list", weak, *others)], gate, Budget(calls=0))
    assert (found.program, found.stopped, len(found.notes)) == (weak, "accepted", 1)
    assert len(found.candidates) == 1 + SECOND_LOOKS
    found = search([Listed("list", weak, others[0])], gate, Budget(calls=0))
    assert found.program == weak


def test_a_plan_that_random_play_hardly_begins_is_asked_for_anew_with_that(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        if asked.task != NAME:
            return [fenced("1.0")]
        return ["1. c"] if "Too weak to learn from: sub-task 1 gets done in 0 of 200" in asked.text else ["1. a"]

    def verify(program: RewardProgram) -> VerificationReport:
        return passes(program) if program.subtasks[0].name == "c" else random_play(program, 0.0, accepted=False)

    assert run(script, verify).result.program == of_plan("c", "1.0")


def test_what_another_proposer_mended_is_gone_on_with(tmp_path: Path) -> None:
    """The first sub-task is mended without a request; what is asked for is the second, beside the mended first."""

    def script(asked: Asked) -> list[str]:
        if asked.task == NAME:
            return ["1. a\n2. b"]
        return [fenced("0.4" if "misses a threshold" in asked.text and source("0.3") in asked.text else "0.9")]

    class Mends:
        name, exhausted = "mends", ""

        def propose(self, tried: Tried) -> Iterator[Proposal | None]:
            for each in [*tried.candidates]:
                first, *rest = each.program.subtasks
                yield Proposal(RewardProgram(subtasks=(first.model_copy(update={"code": source("0.3")}), *rest)))

    with scripted(script) as server:
        with connect(VlmConfig(base_url=server.base_url, max_retries=0), tmp_path) as client:
            gate = SearchGate(wants("0.3", "0.4"), HeldOutGate(passes))
            found = search([Mends(), proposer(client, 1)], gate, Budget(calls=9))
        assert found.program is not None
        assert found.spent.calls == len(server.asked) == 4
