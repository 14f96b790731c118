import numpy as np
import pytest

from carl import vision
from carl.config import SynthesisConfig, VlmConfig
from carl.console.progress import silent
from carl.synthesis import author as authors
from carl.synthesis.author import Author, ranked
from carl.synthesis.parse import Plan, Step
from carl.synthesis.tried import Budget, Tried
from carl.vlm import prompts
from carl.vlm.client import VlmClient
from carl.vlm.exchange import Draw, Exchange, Question, Recording

PLAN = Plan((Step("pick up the {key}", "it is gone"), Step("open the door")))


class Listener(VlmClient):
    """Keeps the questions and answers nothing of use."""

    def __init__(self, path: object) -> None:
        super().__init__(VlmConfig(), Recording(path))  # type: ignore[arg-type]
        self.questions: list[Question] = []

    def exchange(self, question: Question, n: int, seed: int) -> Exchange:
        self.questions.append(question)
        draw = Draw(n=n, temperature=0, max_tokens=9, seed=seed)
        return Exchange(digest="", model="", prompt=question.prompt, messages=(), draw=draw, answers=("prose",) * n)


@pytest.fixture
def listener(tmp_path: object) -> Listener:
    return Listener(tmp_path / "x.jsonl")  # type: ignore[operator]


@pytest.fixture
def author(listener: Listener) -> Author:
    frames = [np.full((48, 64, 3), shade, np.uint8) for shade in range(6)]
    pairs = [(frames[0], frames[1]), (frames[2], frames[3]), (frames[4], frames[5])]
    return Author("get out {of here}", pairs, listener, SynthesisConfig(samples=2), 0, silent, Tried(Budget(calls=10)))


def test_the_last_line_stands_for_itself(author: Author, listener: Listener) -> None:
    author.plans()
    author.plans("1. go", "it failed")
    author.codes(PLAN, 0)
    author.codes(PLAN, 1, "def progress(frame, initial): ...\n", "it failed")
    assert [question.user.splitlines()[-1] for question in listener.questions] == [
        authors.NAME_LINE,
        authors.NAME_LINE,
        authors.WRITE_LINE.format(index=1, count=2, name="pick up the {key}"),
        authors.WRITE_LINE.format(index=2, count=2, name="open the door"),
    ]
    assert authors.NAME_LINE == "Task: name the sub-tasks."
    assert authors.WRITE_LINE.format(index=2, count=3, name="go") == "Task: write the program for sub-task 2 of 3: go."


def test_the_frames_come_in_pairs_and_the_text_says_so(author: Author, listener: Listener) -> None:
    author.codes(PLAN, 1)
    [question] = listener.questions
    assert [int(frame[0, 0, 0]) for frame in question.frames] == [0, 1, 2, 3]
    assert "4 frames of 2 expert episodes" in question.user
    assert "48 pixels high and 64 wide" in question.user


def test_what_a_request_for_a_program_says(author: Author, listener: Listener) -> None:
    author.codes(
        PLAN, 1, "def progress(frame, initial):\n    return 0.5\n", "frame 7 of episode 3: expected 1, got 0.5"
    )
    [question] = listener.questions
    for text in (
        "get out {of here}",
        "1. pick up the {key} - it is gone\n2. open the door",
        "once sub-task 1, pick up",
    ):
        assert text in question.user
    assert "return 0.5" in question.user
    assert "frame 7 of episode 3: expected 1, got 0.5" in question.user
    assert question.prompt == "write/1"
    assert "\n\n\n" not in question.user


def test_without_evidence_nothing_is_said_of_repair(author: Author, listener: Listener) -> None:
    author.plans()
    author.codes(PLAN, 0)
    assert not any("asked before" in question.user for question in listener.questions)
    assert "from the episode's first frame on" in listener.questions[1].user


def test_every_public_function_of_vision_is_listed() -> None:
    reference = prompts.vision_reference()
    functions = [name for name, value in vars(vision).items() if getattr(value, "__module__", "") == vision.__name__]
    assert len(functions) > 10
    for name in functions:
        assert (f"vision.{name}(" in reference or f"{name} has the fields" in reference) is not name.startswith("_")


def test_the_imports_that_the_prompt_allows_are_those_of_the_policy() -> None:
    from carl.sandbox.names import IMPORTS

    text = prompts.load("write").sections["user"]
    assert [line.strip() for line in text.splitlines() if line.startswith(("    import", "    from"))] == list(IMPORTS)


def test_a_prompt_has_a_version() -> None:
    with pytest.raises(ValueError, match="version"):
        prompts.PromptFile.parse("x", "<!-- section: user -->\nhello")


def test_votes_decide_and_ties_go_to_the_first() -> None:
    assert ranked(["b", "a", "A", "c", "C", "B", "a"], str.lower) == ["a", "b", "c"]
