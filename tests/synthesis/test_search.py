"""The whole loop against a server that speaks the protocol and mends its answers from what it is told."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from carl.config import SynthesisConfig, VlmConfig
from carl.errors import VlmError
from carl.program import RewardProgram
from carl.synthesis.search import Candidate, SynthesisResult, synthesize
from carl.vlm.client import connect
from tests.fakes.scripted_vlm import Asked, Script, ScriptedVlm, Status, completion, scripted

PAIRS = [(np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 9, np.uint8))] * 3
NAME = "Task: name the sub-tasks."


@dataclass(frozen=True)
class FakeCheck:
    passed: bool
    subtask: int | None
    name: str = "threshold"
    message: str = "it misses a threshold"


@dataclass(frozen=True)
class FakeReport:
    """Blames one sub-task, or the plan, or nobody."""

    blamed: tuple[int | None, ...] = ()
    told: str = ""
    checks: Sequence[FakeCheck] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "checks", [FakeCheck(True, 0), *(FakeCheck(False, each) for each in self.blamed)])

    @property
    def accepted(self) -> bool:
        return not self.blamed

    def evidence(self, subtask: int | None = None) -> str:
        return f"{self.told} [{subtask}]"


def source(value: str) -> str:
    return f"def progress(frame, initial):\n    return {value}\n"


def fenced(value: str) -> str:
    return f"Here:\n```python\n{source(value)}```"


def wants(*values: str) -> Callable[[RewardProgram], FakeReport]:
    """A gate that accepts a program whose sub-tasks return these values, and tells which threshold it missed."""

    def verify(program: RewardProgram) -> FakeReport:
        if len(program.subtasks) != len(values):
            return FakeReport((None,), f"there should be {len(values)} sub-tasks")
        pairs = zip(program.subtasks, values, strict=True)
        wrong = [index for index, (each, value) in enumerate(pairs) if each.code != source(value)]
        return FakeReport(tuple(wrong), f"expected {values[wrong[0]]}" if wrong else "")

    return verify


@dataclass
class Run:
    result: SynthesisResult
    candidates: list[Candidate]
    server: ScriptedVlm

    @property
    def tasks(self) -> list[str]:
        return [asked.task for asked in self.server.asked]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    def run(script: Script, verify: Callable[[RewardProgram], FakeReport], **changes: int) -> Run:
        config = SynthesisConfig(**{"samples": 4, **changes})  # type: ignore[arg-type]
        seen: list[Candidate] = []
        verified: list[str] = []

        def verify_once(program: RewardProgram) -> FakeReport:
            assert program.id not in verified
            verified.append(program.id)
            return verify(program)

        with scripted(script) as server:
            settings = VlmConfig(base_url=server.base_url, timeout_s=5, max_retries=0)
            with connect(settings, tmp_path) as client:
                result = synthesize("do it", PAIRS, client, config, verify_once, seen.append)
        assert [each.program.id for each in seen] == verified
        assert result.candidates == tuple(seen)
        return Run(result, seen, server)

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
    assert done.result.requests == 3
    assert done.result.usage.calls == 3
    assert done.result.usage.samples == 12
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
    assert done.result.requests == 3


def test_a_program_is_mended_from_the_evidence(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        """Writes 0.5 for everything until it is told what was expected."""
        if asked.task == NAME:
            return ["1. a\n2. b"]
        told = asked.text.partition("expected ")[2].split(" ")[0]
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


def test_after_two_repairs_the_next_plan_is_tried(run: Callable[..., Run]) -> None:
    values = iter(["0.1", "0.2", "0.3", "0.4"])

    def script(asked: Asked) -> list[str]:
        if asked.task == NAME:
            return ["1. b", "1. a", "1. a"]
        return [fenced("1.0" if asked.task.endswith("b.") else next(values))]

    done = run(script, wants("1.0"), samples=3)
    assert [each.program.subtasks[0].code for each in done.candidates] == [
        source(value) for value in ("0.1", "0.2", "0.3", "1.0")
    ]
    assert done.result.requests == 5


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

    def verify(program: RewardProgram) -> FakeReport:
        wanted = [source("1.0"), source("0.0")]
        return FakeReport(() if [each.code for each in program.subtasks] == wanted else (None,), "too easy")

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
    assert done.result.requests <= 6


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
    assert done.result.outcome.startswith("the model wrote no program that could be tried: the model names no further")


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
    assert "cut off after vlm.max_tokens=1024 tokens; raise vlm.max_tokens" in done.result.outcome


def test_the_outcome_names_the_check_that_most_programs_failed(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        return ["1. a"] if asked.task == NAME else [fenced("0.0"), "prose", fenced("0.5"), "prose"]

    outcome = run(script, wants("1.0")).result.outcome
    assert "no program survived verification" in outcome
    assert "2 of 2 programs failed at threshold: it misses a threshold" in outcome
    assert "could not be used, all for one reason: no Python program" in outcome


def test_prose_only_ends_with_a_reason(run: Callable[..., Run]) -> None:
    done = run(lambda _: ["I am a language model."], wants("1.0"))
    assert done.result.program is None
    assert done.result.requests == 2
    assert "no numbered sub-tasks" in done.result.rejections[0].reason


def test_the_budget_is_kept(run: Callable[..., Run]) -> None:
    def script(asked: Asked) -> list[str]:
        return [f"1. {len(asked.text)}"] if asked.task == NAME else [fenced(f"0.{len(asked.text)}")]

    done = run(script, lambda program: FakeReport((0,), "wrong " * len(program.subtasks[0].code)), max_requests=5)
    assert done.result.program is None
    assert done.result.requests == len(done.server.asked) == 5
    assert done.result.stopped == "all 5 requests are used up"


def test_a_stopped_synthesis_goes_on_without_asking_again(tmp_path: Path) -> None:
    dead = False

    def script(asked: Asked) -> list[str] | Status:
        if asked.task == NAME:
            return ["1. a\n2. b"]
        return Status(500) if dead and asked.task.endswith("b.") else [fenced("1.0")]

    config = SynthesisConfig(samples=2)
    with scripted(script) as server:
        settings = VlmConfig(base_url=server.base_url, timeout_s=5, max_retries=0)
        dead = True
        with connect(settings, tmp_path) as client, pytest.raises(VlmError, match="failed"):
            synthesize("do it", PAIRS, client, config, wants("1.0", "1.0"))
        assert len(server.asked) == 3
        dead = False
        with connect(settings, tmp_path) as client:
            result = synthesize("do it", PAIRS, client, config, wants("1.0", "1.0"))
        assert len(server.asked) == 4
    assert result.program is not None
    assert result.usage.calls == 3
