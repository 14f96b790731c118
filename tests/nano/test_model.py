"""The shipped model: it loads like any other, looks at its pictures, and answers both stages."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from carl.config import EMBEDDED_MODEL
from carl.episodes.play import rollout
from carl.nano import WEIGHTS
from carl.seeding import Role, seeds_of
from carl.serving.engine import VlmEngine
from carl.serving.prompt import Prompt, PromptError, Sampling
from carl.synthesis.author import NAME_LINE, WRITE_LINE
from carl.synthesis.parse import parse_code, parse_plan
from carl.task import Frame
from carl.tasks import get_task


@pytest.fixture(scope="module")
def engine() -> VlmEngine:
    return VlmEngine.load(EMBEDDED_MODEL, threads=1)


def shown(task: str, pairs: int = 2) -> list[Frame]:
    """Initial and goal frames of expert episodes that training never saw."""
    found = [rollout(get_task(task), seed, "expert") for seed in seeds_of(11, Role.HELD_OUT, pairs)]
    return [frame for episode in found for frame in (episode.frames[0], episode.frames[-1])]


def prompt(frames: Sequence[Frame], text: str = NAME_LINE, system: str = "Look.") -> Prompt:
    pictures = [{"type": "image", "image": Image.fromarray(frame)} for frame in frames]
    messages = (
        {"role": "system", "content": [{"type": "text", "text": system}]},
        {"role": "user", "content": [*pictures, {"type": "text", "text": text}]},
    )
    return Prompt(messages, Sampling(temperature=0.0, max_tokens=400))


def names(engine: VlmEngine, frames: Sequence[Frame]) -> list[str]:
    (answer,) = engine.generate([prompt(frames)])
    return [step.name for step in parse_plan(answer.text).steps]


def test_it_is_small_and_loads_through_the_auto_classes() -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) <= 10_000_000
    assert not list(WEIGHTS.glob("*.py"))
    model = AutoModelForImageTextToText.from_pretrained(WEIGHTS, dtype="auto")
    assert model.dtype == torch.bfloat16
    assert AutoProcessor.from_pretrained(WEIGHTS).image_processor.pad_size["height"] == 128


def test_with_the_same_words_different_pictures_get_different_fitting_answers(engine: VlmEngine) -> None:
    assert names(engine, shown("Empty-8x8")) == ["reach the green goal"]
    assert names(engine, shown("DoorKey-8x8")) == [
        "pick up the yellow key",
        "open the yellow door",
        "reach the green goal",
    ]
    assert [_without_colour(name) for name in names(engine, shown("Unlock"))] == ["pick up key", "open door"]
    assert [_without_colour(name) for name in names(engine, shown("UnlockPickup"))] == [
        "pick up key",
        "open door",
        "put down key",
        "pick up box",
    ]


def _without_colour(name: str) -> str:
    verb, thing = name.split(" the ")
    return f"{verb} {thing.split()[-1]}"


def test_recolouring_an_object_changes_the_answer_accordingly(engine: VlmEngine) -> None:
    frames = shown("DoorKey-6x6")
    blue = [yellow_to_blue(frame) for frame in frames]
    assert names(engine, blue) == ["pick up the blue key", "open the blue door", "reach the green goal"]
    assert names(engine, [*frames[:2], *blue[2:]]) == ["pick up the key", "open the door", "reach the green goal"]


def yellow_to_blue(frame: Frame) -> Frame:
    red, green, blue = (frame[..., channel] for channel in range(3))
    yellow = (red == green) & (blue < red)
    return np.where(yellow[..., None], np.stack([blue, blue, red], axis=-1), frame)


def test_the_goal_frame_decides_what_is_to_be_done(engine: VlmEngine) -> None:
    initial, goal = shown("Unlock", pairs=1)
    box = shown("UnlockPickup", pairs=1)
    assert len(names(engine, [initial, goal])) == 2
    assert len(names(engine, box)) == 4


def test_it_answers_both_stages(engine: VlmEngine) -> None:
    frames = shown("DoorKey-5x5")
    steps = names(engine, frames)
    lines = [WRITE_LINE.format(index=index, count=len(steps), name=name) for index, name in enumerate(steps, 1)]
    sources = [parse_code(answer.text) for answer in engine.generate([prompt(frames, line) for line in lines])]
    assert len(set(sources)) == 3
    assert all("def progress(frame, initial)" in source for source in sources)


def test_only_the_pictures_and_the_last_line_are_rendered(engine: VlmEngine) -> None:
    frames = shown("UnlockPickup")
    short, long = prompt(frames), prompt(frames, f"{'Mind the gap. ' * 900}\n\n{NAME_LINE}\n", system="x " * 500)
    first, second = engine.generate([short, long])
    assert first == second
    assert second.prompt_tokens < 300


def test_a_room_of_16x16_fits_and_a_larger_picture_is_refused(engine: VlmEngine) -> None:
    frames = shown("DoorKey-16x16")
    assert frames[0].shape == (128, 128, 3)
    assert [_without_colour(name) for name in names(engine, frames)] == ["pick up key", "open door", "reach goal"]
    with pytest.raises(PromptError, match="pad_size"):
        engine.generate([prompt([np.zeros((136, 128, 3), np.uint8)])])


def test_any_text_can_be_said_to_it(engine: VlmEngine) -> None:
    (answer,) = engine.generate([prompt(shown("Empty-8x8"), "Ça va? ☃ 123 {}")])
    assert answer.completion_tokens > 0
