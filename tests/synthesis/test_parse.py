import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carl.errors import ProgramError
from carl.synthesis.parse import UNFIT, Step, Unusable, hold_of, parse_code, parse_codes, parse_plan

GOOD = "def progress(frame, initial):\n    return 1.0\n"


def fenced(source: str, language: str = "python") -> str:
    return f"```{language}\n{source}```"


def indented(source: str) -> str:
    return "".join(f"   {line}\n" for line in source.splitlines())


@pytest.mark.parametrize(
    ("answer", "steps"),
    [
        (
            "Scene: a yellow key.\n1. pick up the key\n2. open the door",
            [("pick up the key", ""), ("open the door", "")],
        ),
        ("1. pick up the key - it is gone from where it lay", [("pick up the key", "it is gone from where it lay")]),
        (
            "1) **Pick up the key**: it is gone.\n2) `Open` \u2013 dark.",
            [("Pick up the key", "it is gone."), ("Open", "dark.")],
        ),
        ("**1. Take it**\n\n**2. Drop it**", [("Take it", ""), ("Drop it", "")]),
        ("Well:\n1. a first idea\n2. another\n\nOr rather:\n1. reach the goal", [("reach the goal", "")]),
        ("### 1. reach the blue-green goal", [("reach the blue-green goal", "")]),
    ],
)
def test_plans(answer: str, steps: list[tuple[str, str]]) -> None:
    assert parse_plan(answer).steps == tuple(Step(*step) for step in steps)


def test_a_plan_knows_its_scene_and_its_equals() -> None:
    plan = parse_plan("Scene: a key.\n1. Pick up  the key - gone\n2. go")
    assert plan.scene == "a key."
    assert plan.key == parse_plan("1. pick up the key\n2. GO").key
    assert parse_plan(str(plan)).steps == plan.steps


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "no numbered sub-tasks"),
        ("The agent should take the key and then leave.", "no numbered sub-tasks.*take the key"),
        ("1. one\n3. three", "do not count up"),
        ("\n".join(f"{i}. step" for i in range(1, 10)), "9 sub-tasks; at most 8"),
        ("1. First of all the agent, which is red, " + "has to look around and " * 4 + "go", "not the short name"),
        ("1. ** - nothing", "not the short name"),
        ("I'm sorry, I can't see images. You could:\n1. Describe them\n2. Try again", "which is a refusal"),
        ("I am not able to view the attached pictures, but:\n1. Describe them", "which is a refusal"),
    ],
)
def test_what_is_no_plan(answer: str, reason: str) -> None:
    with pytest.raises(ProgramError, match=reason):
        parse_plan(answer)


@pytest.mark.parametrize(
    "answer",
    [
        fenced(GOOD),
        fenced(GOOD, "py"),
        fenced(GOOD, ""),
        fenced(GOOD).replace("```", "~~~"),
        f"Here it is:\n\n{fenced(GOOD)}\n\nIt always says 1.",
        fenced("x = 1\n") + "\nand\n" + fenced(GOOD) + "\nfor example\n" + fenced("progress(frame, frame)\n"),
        fenced("let x = 1;\n", "javascript") + "\n" + fenced(GOOD),
        fenced(GOOD.replace("1.0", "0.0")) + "\nBetter:\n" + fenced(GOOD),
        fenced(GOOD.replace("\n", "  \r\n")),
        GOOD,
        f"1. The program:\n   ```python\n{indented(GOOD)}   ```\n",
        f"<think>\n```python\ndef progress(frame, initial):\n    x = 1\nno.\n</think>\n{fenced(GOOD)}",
        f"<think>\n{fenced(GOOD.replace('1.0', '0.0'))}\n</think>\n{fenced(GOOD)}",
        fenced(GOOD) + "<|im_end|>",
        fenced(GOOD) + "`",
        fenced(GOOD, "tool_code"),
        fenced(GOOD, "{.python}"),
        fenced(GOOD, "javascript"),
        fenced(GOOD.rstrip()),
        f"Here it is: {fenced(GOOD)}",
        f"````markdown\n{fenced(GOOD)}\n````",
        fenced(GOOD.replace("    ", "\xa0   ")),
        f"Here it is:\n\n{GOOD}",
        f"Here it is:\n\n{GOOD}\nIt always returns 1.\n",
        f"{GOOD}```",
        f"<|python_tag|>{GOOD}<|eom_id|>",
        json.dumps({"reasoning": "one", "code": GOOD}),
        fenced(json.dumps({"program": fenced(GOOD)}) + "\n", "json"),
        f"<tool_call>\n{json.dumps({'name': 'python', 'arguments': {'code': GOOD}})}\n</tool_call>",
    ],
)
def test_sources(answer: str) -> None:
    assert parse_code(answer) == GOOD


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "which is empty.*progress"),
        ("The agent has to go.", "no Python program in the answer, which is prose: 'The agent"),
        (f"<think>\n{fenced(GOOD)}\n</think>", "nothing but reasoning"),
        (f"Here it is:\n\n{GOOD}\ndef helper(:\n", "no Python program"),
        ("I am sorry, but I cannot see any picture.", "which is a refusal: 'I am sorry"),
        ("```python\ndef progress(frame, initial):\n    return", "not closed"),
        (fenced("function progress(frame, initial) { return 1; }\n", "javascript"), "in javascript, not in Python"),
        (fenced("def check(frame, initial):\n    return 1.0\n"), "defines check, not progress"),
        (fenced("x = 1\n"), "defines no function"),
        (fenced("def progress(image):\n    return 1.0\n"), r"\['image'\]"),
        (fenced("def progress(frame, initial)\n    return 1.0\n"), "no Python program"),
        (fenced("class A:\n    def progress(frame, initial):\n        return 1.0\n"), "defines no function"),
        (fenced("x = '\0'\n" + GOOD), "no Python program"),
        (fenced("x = " + "(" * 500 + ")" * 500 + "\n" + GOOD), "no Python program"),
    ],
)
def test_what_is_no_source(answer: str, reason: str) -> None:
    with pytest.raises(ProgramError, match=reason):
        parse_code(answer)


FRAGMENTS = [
    *(
        "1. a",
        "2. b",
        "Step 1",
        "(1)",
        ": ",
        "- ",
        "\u2014",
        "**",
        "###",
        "Note:\n",
        "Final:\n",
        "Scene: x",
        "\n",
        "   ",
    ),
    *("```", "```python\n", "~~~", "<think>", "</think>", "<|im_end|>", GOOD, "I am sorry", "\x1b[", "\ud800", "\x00"),
    *("[", "{", '"', "[[]]", "[{}]", '["x"]', '{"steps": [1]}', '{"name": "x", "step": 2}', '{"1": {"name": "q"}}'),
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
@settings(max_examples=100)
def test_whatever_is_answered_is_read_or_rejected(answer: str) -> None:
    for parse in (parse_plan, parse_code):
        with suppress(ProgramError):
            parse(answer)


ONE, TWO = (f"def progress(frame, initial):\n    return {value}\n" for value in ("0.1", "0.2"))


def test_an_answer_may_mend_several_functions() -> None:
    answer = f"Because of x:\n```python\n# Sub-task 3: go\n{ONE}```\nand\n```python\nimport math\n# subtask 1\n{TWO}```"
    assert parse_codes(answer, 2, 3) == {0: f"import math\n{TWO}", 2: ONE}
    assert parse_codes(f"```python\n{ONE}```", 1, 3) == {1: ONE}
    with pytest.raises(Unusable, match="of a sub-task that there is not: number 4 of 3"):
        parse_codes(f"```python\n# sub-task 4\n{ONE}```", 1, 3)
    with pytest.raises(Unusable, match="no Python program"):
        parse_codes("It is fine.", 1, 3)


def test_an_answer_may_say_that_a_sub_task_cannot_be_seen() -> None:
    with pytest.raises(
        Unusable, match="no frame shows whether this sub-task is done: 'what is carried is not drawn'"
    ) as told:
        parse_codes("**UNFIT:** what is carried is not drawn", 1, 3)
    assert told.value.kind == UNFIT
    assert parse_codes(f"UNFIT: no, it can be\n```python\n{ONE}```", 1, 3) == {1: ONE}


def test_code_may_ask_to_be_held() -> None:
    assert hold_of(ONE) == 1
    assert hold_of(f"HOLD = 12\n{ONE}") == 12
    for wrong in ("HOLD = 0", "HOLD = 101", "HOLD = True", "HOLD = 'a'", "HOLD = 2\nHOLD = 3", "HOLD, x = 2, 3"):
        with pytest.raises(Unusable, match="`HOLD = k` at the top level, k a number from 1 to 100"):
            parse_code(f"```python\n{wrong}\n{ONE}```")
    with pytest.raises(Unusable, match="HOLD"):
        hold_of("def progress(frame, initial):\n    HOLD = 3\n    return 0.0\n")


def test_a_plan_may_say_by_what_its_goal_is_told() -> None:
    plan = parse_plan(
        "Scene: a lander and 2 flags\nGoal: both legs touch, for 3 frames in a row\n1. land - legs\n2. rest"
    )
    assert [step.name for step in plan.steps] == ["land", "rest"]
    assert str(plan).endswith("2. rest\nHow the goal is told: both legs touch, for 3 frames in a row")
    assert str(parse_plan("1. land")) == "1. land"
