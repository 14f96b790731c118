"""One code for every architecture: what VlmEngine does must not depend on whose checkpoint it is."""

import numpy as np
import pytest
import torch
from PIL import Image

from carl.errors import VlmError
from carl.serving.engine import VlmEngine
from carl.serving.prompt import Prompt, PromptError, Sampling
from carl.serving.sampling import RowSampler, before_stop, nucleus
from tests.fakes.tiny_vlms import ARCHITECTURES


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8))


def prompt(*pictures: Image.Image, text: str = "Task: name the sub-tasks.", **sampling: object) -> Prompt:
    parts = [{"type": "image", "image": each} for each in pictures]
    system = {"role": "system", "content": [{"type": "text", "text": "be brief"}]}
    user = {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
    return Prompt((system, user), Sampling(**{"max_tokens": 6, **sampling}))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def engine(request: pytest.FixtureRequest, models: dict[str, str]) -> VlmEngine:
    return VlmEngine.load(models[request.param], threads=1)


def test_a_mixed_batch_answers_as_its_rows_alone(engine: VlmEngine) -> None:
    prompts = [
        prompt(picture(0), temperature=0.0, max_tokens=3),
        prompt(picture(0), picture(1), text="a longer text than the other", seed=(7, 0), max_tokens=9),
        prompt(text="no picture at all", temperature=0.0),
    ]
    together = engine.generate(prompts)
    assert together == [engine.generate([each])[0] for each in prompts]
    assert [answer.completion_tokens for answer in together] == [3, 9, 6]
    assert [answer.finish_reason for answer in together] == ["length"] * 3
    assert together[1].prompt_tokens > together[0].prompt_tokens > 0


def test_the_pictures_reach_the_model(engine: VlmEngine) -> None:
    answers = {engine.generate([prompt(picture(seed), temperature=0.0, max_tokens=16)])[0].text for seed in range(4)}
    assert len(answers) > 1


def test_seeds_decide_samples(engine: VlmEngine) -> None:
    same, again, other = engine.generate([prompt(picture(0), seed=(1, n), max_tokens=12) for n in (0, 0, 1)])
    assert same == again
    assert same.text != other.text


def test_a_stop_string_ends_an_answer(engine: VlmEngine) -> None:
    whole = engine.generate([prompt(picture(0), temperature=0.0, max_tokens=12)])[0]
    stop = next(letter for letter in whole.text[1:] if letter.isascii() and letter not in whole.text[:1])
    cut = engine.generate([prompt(picture(0), temperature=0.0, max_tokens=12, stop=(stop,))])[0]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.completion_tokens < whole.completion_tokens


def test_a_prompt_beyond_the_context_is_refused(engine: VlmEngine) -> None:
    with pytest.raises(PromptError, match="context"):
        engine.generate([prompt(picture(0), text="x" * 3000)])


def test_a_long_answer_is_kept_within_the_context(engine: VlmEngine) -> None:
    answer = engine.generate([prompt(text="x" * (engine.context - 60), temperature=0.0, max_tokens=500)])[0]
    assert answer.prompt_tokens + answer.completion_tokens <= engine.context


def test_no_model_there(tmp_path: object) -> None:
    with pytest.raises(VlmError, match="cannot load the model"):
        VlmEngine.load(f"{tmp_path}/nothing")


def test_gumbel_noise_samples_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    sampler = RowSampler([Sampling(temperature=0.5, top_p=0.95, seed=(3,))], torch.device("cpu"))
    draws = [int(sampler(torch.zeros(1, 1), logits[None]).argmax()) for _ in range(4000)]
    expected = nucleus(logits / 0.5, 0.95).softmax(dim=0)
    assert torch.allclose(torch.bincount(torch.tensor(draws), minlength=4) / 4000, expected, atol=0.03)
    assert expected.count_nonzero() == 2


def test_the_nucleus_keeps_at_least_the_likeliest() -> None:
    assert nucleus(torch.tensor([0.0, 5.0, 1.0]), 1e-6).isfinite().tolist() == [False, True, False]


def test_before_stop() -> None:
    assert before_stop("one\ntwo END", ["END", "\n"]) == "one"
    assert before_stop("one", ["END"]) == "one"
