"""A plan in the dress that models give it: the right one is found or none, and never another one."""

import json
from collections.abc import Callable
from itertools import product

import pytest

from carl.errors import ProgramError
from carl.synthesis.parse import parse_plan

STEPS = (("Take the key", "it is gone"), ("Open the door", "it is thin"), ("Reach the goal", "the agent is on it"))

Steps = tuple[tuple[str, str], ...]


def lines(form: str, gap: str = "\n") -> Callable[[Steps], str]:
    return lambda steps: gap.join(form.format(k=k, name=n, text=t) for k, (n, t) in enumerate(steps, 1)) + "\n"


NUMBERED = {
    "1.": lines("{k}. {name} - {text}"),
    "1:": lines("{k}: {name} - {text}"),
    "1)": lines("{k}) {name}: {text}"),
    "(1)": lines("({k}) {name} \u2013 {text}"),
    "1 -": lines("{k} - {name}"),
    "no space": lines("{k}.{name} - {text}"),
    "keycap": lines("{k}\ufe0f\u20e3 {name}\u2014{text}"),
    "step": lines("Step {k}: {name} - {text}"),
    "bold step": lines("**Step {k}: {name}** - {text}"),
    "twice a step": lines("{k}. Step {k}: {name} - {text}"),
    "bold": lines("**{k}. {name}**\n{text}", "\n\n"),
    "bold with its colon": lines("{k}. **{name}:** {text}"),
    "bold with its dash": lines("{k}. **{name} -** {text}"),
    "heading": lines("### {k}. {name}\n{text}"),
    "heading, bold name below": lines("## Sub-task {k}\n**{name}**\n{text}\n"),
    "heading, name below": lines("### Sub-task {k}\n{name} - {text}\n"),
    "all 1.": lines("1. {name} - {text}"),
    "loose": lines("{k}. {name} - {text}", "\n\n"),
    "indented": lines("  {k}. {name} - {text}"),
    "quoted": lines("> {k}. {name} - {text}"),
    "sub-points": lines("{k}. {name}\n   1. {text}\n   2. look at it"),
    "bullets": lines("{k}. **{name}**\n   - {text}\n"),
    "bulleted": lines("- **{k}.** {name} - {text}"),
    "fields": lines("{k}. **Name:** {name}\n   **Description:** {text}"),
    "JSON": lambda steps: json.dumps([{"name": n, "description": t} for n, t in steps]),
    "JSON texts": lambda steps: json.dumps([f"{n} - {t}" for n, t in steps], indent=2),
    "JSON by number": lambda steps: json.dumps({f"Step {k}": n for k, (n, _) in enumerate(steps, 1)}),
    "JSON object": lambda steps: json.dumps(
        {"scene": "a room", "sub-tasks": [{"step": k, "name": n, "how": t} for k, (n, t) in enumerate(steps, 1)]}
    ),
}
BEFORE = {
    "": "",
    "scene": "Scene: a room\n",
    "bold scene": "**Scene:** a room\n\n",
    "colon": "The sub-tasks are:\n",
    "thinking": "<think>\n1. look\n2. go\n4. leave\nso drop one.\n</think>\n",
    "thinking from the template": "1. look around\n2. go\n</think>\n\n",
    "thinking without end": "<think>\nI see a key.\n\n",
    "channels": "<|channel|>analysis<|message|>1. look<|end|><|start|>assistant<|channel|>final<|message|>",
    "notes": "Notes:\n1. the key is yellow\n2. the door too\n\n",
    "rules": "The rules:\n   1. few\n   2. telling\n",
}
DRAFTS = {
    "or rather": "A draft:\n1. Leave\n\nOr rather:\n",
    "final": "My plan:\n1. Leave\n\n**Final plan**\n\n",
    "scene": "1. look\n2. go\n\nScene: a room\n",
    "number": "3. is the number of doors I see.\n\nScene: a room\n",
    "frames": "1. Initial frame: a key\n2. Goal frame: no key\n\nScene: a room\n",
}
DOUBTFUL_BEFORE = {
    "number": "3. is the number of doors.\n\n",
    "two": "2. is the number of doors.\n\n",
    "nought": "0. nothing is seen.\n\n",
    "draft": "1. Look around\n2. Leave\n\n",
    "indented draft": "   1. Leave\n\n",
}
AFTER = {
    "": "",
    "prose": "\nI hope this helps.",
    "end": "<|im_end|>",
    "turn": "<|im_end|>\n<|im_start|>user\nThanks",
    "note": "\nNote:\n1. the colours vary.\n",
    "notes": "\n**Notes**\n\n1. the colours vary.\n2. so do sizes\n",
    "again": "\nAgain:\n\n{plan}",
}
DOUBTFUL_AFTER = {
    "thinking": "\n<think>\n1. Leave\n</think>\n",
    "list": "\n1. the colours vary.\n",
    "turn": "<|im_end|>\n1. Leave",
    "next": "\n{next}. is the number of doors.\n",
    "next in a paragraph": "\nThe number of doors is\n{next}. That is all.\n",
    "next after a label": "\nDoors:\n{next}. That is all.\n",
    "next without mark": "{next} doors are seen.\n",
    "reasons": "\nWhy this is better:\n1. fewer steps\n",
    "on the final": "\nOn the final plan:\n1. fewer steps\n",
    "indented": "\nSo:\n   1. Leave\n   2. Go\n",
    "loose and indented": "\nMore on this:\n\n   1. Leave\n",
    "JSON": '\n["Leave"]\n',
}
WRAPPED = {"fence": "```\n{plan}\n```", "JSON fence": "```json\n{plan}\n```", "tag": "<answer>{plan}</answer>"}


def read(form: str, steps: Steps, after: str = "") -> list[str] | None:
    """The names that are found in a dressed plan; None if it is rejected."""
    text = form + after.format(plan=form, next=len(steps) + 1)
    try:
        return [step.name for step in parse_plan(text).steps]
    except ProgramError:
        return None


def names(steps: Steps) -> list[str]:
    return [name for name, _ in steps]


@pytest.mark.parametrize("numbered", NUMBERED)
def test_a_plan_is_found_in_its_dress(numbered: str) -> None:
    for count, before, after in product((1, 2, 3), BEFORE, AFTER):
        steps = STEPS[:count]
        found = read(BEFORE[before] + NUMBERED[numbered](steps), steps, AFTER[after].replace("{plan}", ""))
        assert found == names(steps), (count, before, after)


@pytest.mark.parametrize("wrap", WRAPPED)
def test_a_plan_is_found_in_its_wrapping(wrap: str) -> None:
    for form in NUMBERED.values():
        assert read(WRAPPED[wrap].replace("{plan}", form(STEPS)), STEPS) == names(STEPS)


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_final_plan_is_told_from_a_draft(draft: str) -> None:
    for name, form in NUMBERED.items():
        found = read(DRAFTS[draft] + form(STEPS), STEPS)
        assert found == names(STEPS) or ("JSON" in name and found is None)


@pytest.mark.parametrize("numbered", NUMBERED)
def test_no_dress_makes_another_plan_of_it(numbered: str) -> None:
    befores, afters = BEFORE | DRAFTS | DOUBTFUL_BEFORE, AFTER | DOUBTFUL_AFTER
    for index, (before, after) in enumerate(product(befores, afters)):
        steps = STEPS[: 1 + index % 3]
        found = read(befores[before] + NUMBERED[numbered](steps), steps, afters[after])
        assert found in (names(steps), None), (len(steps), before, after)


@pytest.mark.parametrize(
    "answer",
    [
        "1. Take the key 2. Open the door",
        "1. Take the key\n1. look at the floor\n2. Open the door",
        "1. Take the key\n   2. Open the door",
        "1. Take the key\nand then 2. Open the door",
        "1. Take the key - it is gone<br>2. Open the door",
        "1. Take the key - it is gone\\n2. Open the door",
        "1. Take the key\n(Optional) 2. Open the door",
        "1. Take the key\n...",
        "1. Initial frame: a key\n2. Goal frame: no key",
        "1. Take the key\n2 Open the door",
        "1. Take the key\n**2.** Open the door",
        "1. Take the key\n2. Open the door\n\n3. Leave",
        "2. Open the door\n1. Take the key",
        "1. Step 2: Open the door",
        "1. <short name> - <one sentence>",
        '{"name": "Take the key"}\n{"name": "Open the door"}',
        '["Take the key", "Open the',
        '{"objects": ["key", "door"]}',
        '{"subtasks": ["Take the key"], "steps": ["Open the door"]}',
        '[{"step": 2, "name": "Take the key"}, {"step": 1, "name": "Open the door"}]',
        '[["Take the key"]]',
        '["1. Take the key", "3. Open the door"]',
        "<think>1. Take the key</think>",
    ],
)
def test_what_can_be_read_in_two_ways_is_rejected(answer: str) -> None:
    with pytest.raises(ProgramError):
        parse_plan(answer)


def test_what_a_plan_says_beside_the_names() -> None:
    plan = parse_plan("**Scene:** a room\n\n### 1. Take the key\nIt is gone\nfrom the floor.\n\n### 2. Open the door\n")
    assert plan.scene == "a room"
    assert [step.description for step in plan.steps] == ["It is gone from the floor.", ""]


@pytest.mark.parametrize(
    "name", ["Take \x1b[31mthe\x1b[0m key", "Take\u202e the\x07 key\x00", "Take the\u200b\x9b2J key"]
)
def test_names_hold_nothing_that_steers_a_terminal(name: str) -> None:
    for answer in (f"1. {name} - {name}", json.dumps([{"name": name, "description": name}])):
        [step] = parse_plan(answer).steps
        assert (step.name, step.description) == ("Take the key", "Take the key")


@pytest.mark.parametrize(
    "answer",
    [
        '1. <Take the key> - <it is gone>\n2. [Open the door]: "it is thin"',
        "1. **Take** the key - it is gone\n2. **Open the door**",
        "1. \u201cTake the key\u201d\n2. `Open the door`",
        "Answer: " + json.dumps(["Take the key", "Open the door"]),
        json.dumps([{"id": 0, "name": "Take the key"}, {"id": 1, "name": "Open the door"}]),
        json.dumps(
            {"answer": {"steps": {"1": {"description": "Take the key"}, "2": {"description": "Open the door"}}}}
        ),
    ],
)
def test_names_are_found_in_their_own_dress(answer: str) -> None:
    assert [step.name for step in parse_plan(answer).steps] == ["Take the key", "Open the door"]
