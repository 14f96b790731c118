"""Who is asked for programs where the settings do not say."""

import numpy as np
import pytest

from carl.config import SynthesisConfig, VlmConfig
from carl.episodes.play import first_frame
from carl.methods.proposing import ORIGINS, names_of
from carl.tasks import get_task

LAKE = np.full((64, 64, 3), 99, np.uint8)
"""A size that the embedded model can take, and tiles that it does not know."""

ROOM = first_frame(get_task("DoorKey-5x5"))[0]
HELPED = ("pool", "tune", "step", "model", "induction")


@pytest.mark.parametrize(
    ("vlm", "frame", "names"),
    [
        (VlmConfig(), LAKE, ("induction",)),
        (VlmConfig(), LAKE[:60], ("induction",)),
        (VlmConfig(), ROOM, ("model", "induction")),
        (VlmConfig(model="other"), LAKE, HELPED),
        (VlmConfig(recording="some/exchanges.jsonl"), LAKE, HELPED),
    ],
)
def test_proposers_follow_from_the_model_and_the_pictures(vlm: VlmConfig, frame: np.ndarray, names: tuple) -> None:
    assert names_of(vlm, SynthesisConfig(), frame) == names
    asked = SynthesisConfig.model_validate({"proposers": "tune, model"})
    assert names_of(vlm, asked, frame) == ("tune", "model")


def test_every_proposer_has_words() -> None:
    assert set(ORIGINS) == set(HELPED)
