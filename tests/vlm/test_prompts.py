from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from carl import vision
from carl.config import SynthesisConfig, VlmConfig
from carl.console.progress import silent
from carl.nano.pictures import readable
from carl.synthesis import author as authors
from carl.synthesis.author import Author, ranked
from carl.synthesis.failures import Findings
from carl.synthesis.parse import Plan, Step
from carl.synthesis.shown import Examples
from carl.synthesis.tried import Budget, Tried
from carl.vlm import prompts
from carl.vlm.client import VlmClient
from carl.vlm.exchange import Draw, Exchange, Question, Recording
from tests.fakes.episodes import episode

CODE = "def progress(frame, initial):\n    return 0.5\n"
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
    pairs = [(frames[0], frames[1]), (frames[2], frames[3])]
    examples = Examples([episode(*pair, seed=seed) for seed, pair in enumerate(pairs)])
    return Author(
        "get out {of here}", examples, listener, SynthesisConfig(samples=2), 0, silent, Tried(Budget(calls=10))
    )


def test_the_last_line_stands_for_itself(author: Author, listener: Listener) -> None:
    author.plans()
    author.plans("1. go", Findings("it failed"))
    author.codes(PLAN, 0)
    author.mended(PLAN, 1, [CODE, CODE], Findings("it failed"))
    assert [question.user.splitlines()[-1] for question in listener.questions] == [
        authors.NAME_LINE,
        authors.NAME_LINE,
        authors.WRITE_LINE.format(index=1, count=2, name="pick up the {key}"),
        authors.WRITE_LINE.format(index=2, count=2, name="open the door"),
    ]
    assert authors.NAME_LINE == "Task: name the sub-tasks."
    assert authors.WRITE_LINE.format(index=2, count=3, name="go") == "Task: write the program for sub-task 2 of 3: go."


def test_the_frames_come_in_pairs_with_captions_and_the_text_tells_their_size(
    author: Author, listener: Listener
) -> None:
    author.codes(PLAN, 1)
    [question] = listener.questions
    assert [int(frame[0, 0, 0]) for frame in question.frames] == [0, 1, 2, 3]
    assert question.captions[:2] == ("expert episode 0, initial frame", "expert episode 0, goal frame")
    assert "4 frames of one task" in question.user
    assert "48 pixels high and 64 wide" in question.user
    assert "shown in that size" in question.user
    assert "(0, 0, 0) black, 100.0%; picture 1: 0,0,64,48" in question.user
    content = question.messages()[1]["content"]
    assert [part["type"] for part in content] == ["text", "image"] * 4 + ["text"]
    assert content[2]["text"] == "Picture 2: expert episode 0, goal frame"


def test_the_embedded_model_reads_the_pairs_of_a_request_and_nothing_else(author: Author, listener: Listener) -> None:
    author.codes(PLAN, 1)
    [question] = listener.questions
    more = replace(
        question, frames=question.frames * 2, captions=(*question.captions, "near miss", "", "x, goal frame", "y")
    )
    messages = [
        {**message, "content": message["content"] if index else [{"type": "text", "text": message["content"]}]}
        for index, message in enumerate(more.messages(lambda frame: {"type": "image", "image": int(frame[0, 0, 0])}))
    ]
    system, user = readable(tuple(messages))
    assert system == messages[0]
    assert [part.get("image", part.get("text")) for part in user["content"]] == [0, 1, 2, 3, 1, question.user]


def test_what_a_request_to_mend_says(author: Author, listener: Listener) -> None:
    author.mended(PLAN, 1, ["", CODE], Findings("frame 7 of episode 3: expected 1, got 0.5"))
    [question] = listener.questions
    for text in (
        "get out {of here}",
        "1. pick up the {key} - it is gone\n2. open the door",
        "once sub-task 1, pick up",
        "sub-task 1: (nothing that could be used)",
        "# sub-task 2\ndef progress",
        "return 0.5",
        "frame 7 of episode 3: expected 1, got 0.5",
    ):
        assert text in question.user
    assert question.prompt == "write/3"
    assert "\n\n\n" not in question.user


def test_enlarged_pictures_are_said_to_be(listener: Listener) -> None:
    listener._config = VlmConfig(min_frame_px=100)
    examples = Examples([episode(*np.zeros((2, 30, 40, 3), np.uint8))])
    Author("", examples, listener, SynthesisConfig(), 0, silent, Tried(Budget(calls=1))).plans()
    assert "enlarged 4 times" in listener.questions[0].user


def test_without_evidence_nothing_is_said_of_repair(author: Author, listener: Listener) -> None:
    author.plans()
    author.codes(PLAN, 0)
    author.codes(PLAN, 1, [CODE], "no Python program")
    *two, third = listener.questions
    assert not any("asked before" in question.user for question in two)
    assert all(text in third.user for text in ("asked before", "no Python program", "as they are in use", CODE))
    assert "from the episode's first frame on" in listener.questions[1].user


def test_every_public_function_of_vision_is_listed() -> None:
    reference = prompts.vision_reference()
    functions = [name for name, value in vars(vision).items() if getattr(value, "__module__", "") == vision.__name__]
    assert len(functions) > 10
    assert "red 0 to 8 and 172 to 180" in reference
    assert "neighbours touch at sides or corners" in reference
    for name in functions:
        assert (f"vision.{name}(" in reference or f"{name} has the fields" in reference) is not name.startswith("_")


def test_the_imports_that_the_prompt_allows_are_those_of_the_policy() -> None:
    from carl.sandbox.names import IMPORTS

    text = prompts.load("write").sections["user"]
    assert [line.strip() for line in text.splitlines() if line.startswith(("    import", "    from"))] == list(IMPORTS)


def test_the_first_version_can_still_be_asked(listener: Listener) -> None:
    folder = Path(__file__).parents[2] / "benchmarks/prompts_v1"
    files = {name: prompts.PromptFile.parse(name, (folder / f"{name}.md").read_text()) for name in prompts.NAMES}
    examples = Examples([episode(*np.zeros((2, 8, 8, 3), np.uint8))])
    tried = Tried(Budget(calls=9))
    author = Author("go", examples, listener, SynthesisConfig(), 0, silent, tried, files)
    author.plans("1. go", Findings("it failed"))
    author.codes(PLAN, 1, [CODE], "prose")
    author.mended(PLAN, 1, [CODE, CODE], Findings("it failed"))
    assert [question.prompt for question in listener.questions] == ["decompose/1", "write/1", "write/1"]
    assert "2 frames of 1 expert episodes" in listener.questions[0].user
    assert [question.user.splitlines()[-1] for question in listener.questions][1:] == [
        "Task: write the program for sub-task 2 of 2: open the door."
    ] * 2


def test_a_prompt_has_a_version() -> None:
    with pytest.raises(ValueError, match="version"):
        prompts.PromptFile.parse("x", "<!-- section: user -->\nhello")


def test_votes_decide_and_ties_go_to_the_first() -> None:
    assert ranked(["b", "a", "A", "c", "C", "B", "a"], str.lower) == ["a", "b", "c"]
