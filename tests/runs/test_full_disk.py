"""A run on a disk that is full, at one file after the other: it says so, and goes on once there is room."""

import builtins
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from carl.errors import ResourceError
from carl.runs.pipeline import Pipeline
from carl.runs.watch import look
from tests.fakes.scripted_vlm import ScriptedVlm
from tests.runs.test_pipeline import answer, config

pytestmark = pytest.mark.usefixtures("ray_cluster")

SMALL = {"training": {"train_batch_size_per_learner": 500, "minibatch_size": 125, "num_epochs": 1}}
TRAIN = {"env_steps": 500, "env_runners": 0, "envs_per_runner": 8, "baselines": False, "evaluate_every": 1}
FILES = (
    ("synthesize", "synthesis/pairs.npz.new"),
    ("synthesize", "synthesis/exchanges.jsonl"),
    ("synthesize", "program.json.new"),
    ("train", "training/code/curve.jsonl"),
    ("train", "training/code/checkpoints/draft/state.json"),
    ("evaluate", "result.json.new"),
    ("report", "report.html.new"),
)
"""In the order in which they are written, and the stages that write them."""


@contextmanager
def no_space_for(path: Path) -> Iterator[None]:
    """What is written to ``path`` ends after a byte: the rest goes to /dev/full."""
    real = io.open

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not set(mode) & set("wa") or Path(str(file)) != path:
            return real(file, mode, *args, **kwargs)
        with real(file, mode, *args, **kwargs) as begun:
            begun.write(b"{" if "b" in mode else "{")
        return real("/dev/full", mode, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for module in (io, builtins):
            patch.setattr(module, "open", opened)
        yield


def test_it_ends_with_the_disk_s_name_leaves_nothing_half_and_goes_on(tmp_path: Path) -> None:
    with ScriptedVlm(answer).running() as vlm:
        settings = config(tmp_path / "run", vlm.base_url, train=TRAIN | {"rllib": SMALL})
        for stage, name in FILES:
            with (
                no_space_for(tmp_path / "run" / name),
                pytest.raises(ResourceError, match=rf"no space is left on the disk of {tmp_path}/run"),
            ):
                Pipeline(settings).run()
            assert look(str(tmp_path / "run")).failed == stage, name
            for path in (tmp_path / "run").rglob("*.json"):
                assert json.loads(path.read_text()), path
            assert not list((tmp_path / "run").rglob("draft"))
        result = Pipeline(settings).run()
    assert result is not None
    assert result["rework_steps"] == 2 * result["env_steps"], "trained anew for the curve's sake and the checkpoint's"
    assert look(str(tmp_path / "run")).over
    assert len(vlm.asked) == 3, "one answer could not be kept"
    curve = (tmp_path / "run/training/code/curve.jsonl").read_text().splitlines()
    assert [json.loads(point)["env_steps"] for point in curve] == [result["env_steps"]]
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.endswith((".new", "draft"))]
