"""Training learns, and a run that was stopped goes on as if it had not been."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from carl.errors import ConfigError
from carl.nano.batches import canvas, collate, dialogues, practice, scenes_of
from carl.nano.model import build_model, build_processor, train_tokenizer
from carl.nano.scenes import draw
from carl.nano.train import Recipe, Trainer, forward, schedule
from carl.seeding import Role

RECIPE = Recipe(steps=4, batch=2, checkpoint_every_s=0.0)


class Stopped(Exception):
    pass


def stop_after(count: int):
    calls = []

    def progress(label: str, done: float, total: float | None = None) -> None:
        calls.append(done)
        if len(calls) > count:
            raise Stopped

    return progress


pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = Trainer(RECIPE, tmp_path / "whole")
    whole.run()
    with pytest.raises(Stopped):
        Trainer(RECIPE, tmp_path / "halves").run(stop_after(2))
    resumed = Trainer(RECIPE, tmp_path / "halves")
    assert resumed.step == 2
    resumed.run()
    assert resumed.step == whole.step == 4
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_a_run_with_another_recipe_is_refused(tmp_path: Path) -> None:
    Trainer(RECIPE, tmp_path).save_checkpoint()
    with pytest.raises(ConfigError, match="give another"):
        Trainer(replace(RECIPE, batch=3), tmp_path)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    heard = []
    trainer = Trainer(Recipe(steps=25, batch=2), tmp_path)
    tokenizer = trainer.tokenizer
    drawn = scenes_of(0, Role.HELD_OUT, 0, 4, "unlock")
    held_out = collate(drawn, practice(drawn, 0), tokenizer)
    before = forward(trainer.model, held_out, "cpu")[0].item()
    trainer.run(log=heard.append)
    assert forward(trainer.model, held_out, "cpu")[0].item() < 0.8 * before
    assert [entry["step"] for entry in heard] == [25]


def test_dialogues_of_one_scene_do_not_see_each_other() -> None:
    drawn = scenes_of(0, Role.TRAINING, 0, 2, "doorkey")
    tokenizer = train_tokenizer(["Task: name the sub-tasks."])
    model = build_model(tokenizer).eval()
    packed = collate(drawn, [dialogues(scene, 0) for scene in drawn], tokenizer)
    alone = collate(drawn[:1], [dialogues(drawn[0], 0)[:1]], tokenizer)
    length = alone.ids.shape[1]
    with torch.no_grad():
        hidden = [
            model.model(
                input_ids=each.ids,
                pixel_values=each.pixels,
                attention_mask=each.mask,
                position_ids=each.positions,
                use_cache=False,
            ).last_hidden_state[0]
            for each in (packed, alone)
        ]
    assert torch.allclose(hidden[0][:length], hidden[1], atol=1e-4)
    second = (packed.targets[0] >= 0).nonzero().flatten().tolist()[-1]
    assert second >= length
    assert not packed.mask[0, 0, second, len(hidden[1]) - 1]


def test_training_sees_what_the_processor_shows() -> None:
    frames = list(draw(np.random.default_rng(0), family="unlockpickup").frames)
    processor = build_processor(train_tokenizer(["x"]))
    shown = processor.image_processor([Image.fromarray(frame) for frame in frames], return_tensors="pt").pixel_values
    assert torch.allclose(shown, canvas(frames), atol=1e-6)


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    assert schedule(0.0) == 0.0
    assert schedule(0.03) == pytest.approx(1.0)
    assert 0.0 < schedule(0.9) < schedule(0.5) < 1.0
    assert schedule(1.0) == 0.0
