"""A method that a package of somebody else's brings: found by its entry point, trained with baselines, and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from carl.config import RunConfig
from carl.errors import ConfigError, RewardError
from carl.methods import Work, config_class, method_of, run_config
from carl.methods.arms import arm_of, arms_of, mix_of
from carl.runs.settings import settings
from carl.runs.stages import settled_by, stages_of
from tests.fakes.corridor import CORRIDOR

ROOT = Path(__file__).parents[2]

THAT = '''
"""Pays the step that an observation of a corridor has gone, and shows how far it is."""

from collections import Counter
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from pydantic import Field

from carl.artefacts import read_json, write_json
from carl.config import RunConfig, Section
from carl.methods import Method, Stage, Work
from carl.rewards.source import Judged, Need

SHOWS = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
MEASURED = "that.json"


class Gain(Section):
    gain: float = Field(default=1.0, gt=0, description="What a step to the right is worth.")


class ThatConfig(RunConfig):
    that: Gain = Gain()


@dataclass(frozen=True)
class Steps:
    gain: float
    id: str = "steps"
    needs: frozenset = frozenset({Need.OBSERVATIONS})

    @property
    def shows(self):
        return SHOWS

    def open(self, slots):
        return Session(self, slots)


class Session:
    def __init__(self, source, slots):
        self.source, self.far, self.counts = source, np.zeros(slots), Counter()

    def look(self, seen):
        now = seen.observations.argmax(axis=1) / (seen.observations.shape[1] - 1)
        earned = np.where(seen.began, 0.0, self.source.gain * (now - self.far[seen.slots]))
        self.far[seen.slots] = now
        return Judged(earned, now[:, None].astype(np.float32), np.zeros(len(now), bool))

    def close(self):
        pass


def measure(work: Work[ThatConfig]) -> None:
    write_json(work.directory / MEASURED, {"gain": work.config.that.gain})


def made(directory, config):
    return (directory / MEASURED).read_text() if (directory / MEASURED).exists() else None


def source(work: Work[ThatConfig]) -> Steps:
    return Steps(read_json(work.directory / MEASURED, dict)["gain"])


class Twice:
    """Doubles the gain after the second iteration."""

    def __init__(self, first):
        self.first = first

    def after(self, iteration):
        now = iteration.number > 1 and iteration.source_id == self.first.id
        return Steps(2 * self.first.gain, id="steps, twice") if now else None


THAT = Method(
    "that",
    words="reward of steps",
    config=ThatConfig,
    stages=(Stage("measure", measure, made, settles=("that",)),),
    source=source,
    shows=lambda config: SHOWS,
    needs=frozenset({Need.OBSERVATIONS}),
    teacher=lambda work: Twice(source(work)),
    found=lambda directory: {"measured": read_json(directory / MEASURED, dict)},
)
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with the package installed in it, and another whose module cannot be imported."""
    folder = tmp_path / "site"
    for name, text in (("that", THAT), ("broken", "import nothing_of_the_sort")):
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[carl.methods]\n{name} = {name}_method:THAT\n")
        (folder / f"{name}_method.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    method_of.cache_clear()
    yield folder
    method_of.cache_clear()
    sys.modules.pop("that_method", None)


def test_a_method_is_found_by_name_and_its_package_is_named_if_it_is_broken(installed: Path) -> None:
    assert method_of("that").words == "reward of steps"
    with pytest.raises(ConfigError, match=r"cannot import the method 'broken' of the package broken: ModuleNotFound"):
        method_of("broken")
    with pytest.raises(ConfigError, match=r"'tat' is not one of code, .*sparse, broken, that; did you mean that\?"):
        method_of("tat")
    assert method_of("code") is not None, "a broken package is in nobody else's way"


def test_whatever_its_code_raises_is_a_sentence(installed: Path, tmp_path: Path) -> None:
    method, work = method_of("that"), Work(CORRIDOR, RunConfig(task="corridor"), tmp_path)
    (measure,) = method.stages
    with pytest.raises(RewardError, match=r"method 'that', stage 'measure': run raised AttributeError: .* 'that' \("):
        measure.run(work)
    with pytest.raises(ConfigError, match=r"that\.json"):
        method.source(work)
    with pytest.raises(ConfigError, match="'that' has no source to pay by: give it one"):
        replace(method, source=None)


def test_a_package_that_ends_the_process_is_named(installed: Path) -> None:
    (installed / "broken_method.py").write_text("raise SystemExit(3)")
    with pytest.raises(ConfigError, match="cannot import the method 'broken' of the package broken: SystemExit: 3"):
        method_of("broken")


def test_two_methods_of_one_name_are_refused(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (installed / "that-1.0.dist-info/entry_points.txt").write_text("[carl.methods]\ncode = that_method:THAT\n")
    with pytest.raises(ConfigError, match="two methods are called 'code'; one of them comes from that_method:THAT"):
        method_of("code")


def test_its_configuration_has_its_own_sections_and_no_others(installed: Path, tmp_path: Path) -> None:
    sets = ["reward.method=that", "that.gain=2"]
    config = settings("DoorKey-5x5", None, tmp_path / "run", None, sets)
    assert config.model_dump()["that"] == {"gain": 2.0}
    assert config_class({"reward": {"source": "that"}}) is type(config)
    assert settled_by(config)["that"] == "measure"
    assert [stage.name for stage in stages_of(config)] == ["measure", "train", "evaluate", "report"]
    for wrong, message in (("vlm.model=x", "there is no vlm"), ("that.gian=1", r"did you mean that\.gain\?")):
        with pytest.raises(ConfigError, match=message):
            settings("DoorKey-5x5", None, tmp_path / "run", None, [*sets, wrong])


def test_its_arms_are_its_own_and_the_baselines(installed: Path) -> None:
    tree = {"task": "x", "reward": {"method": "that", "env_reward_weight": 0.5}}
    config = run_config(tree)
    assert [(arm.name, arm.pays, arm.shows) for arm in arms_of(config)] == [
        ("that", True, True),
        ("sparse+progress", False, True),
        ("sparse", False, False),
    ]
    main, progress, sparse = (mix_of(config, arm) for arm in arms_of(config))
    assert (main.source, main.env) == (1.0, 0.5)
    assert main.shows == progress.shows != sparse.shows
    hidden = run_config({**tree, "reward": {"method": "that", "progress_in_observation": False}})
    assert [arm.name for arm in arms_of(hidden)] == ["that", "sparse"]
    assert arm_of("that").words == "reward of steps"
    assert arm_of("gone").words == "gone reward"


def carl(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "carl", *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background work ignores it
    )


def test_a_run_trains_on_it_goes_on_after_a_stop_and_is_not_done_twice(installed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["run", "tests.fakes.corridor:CORRIDOR", "--run-dir", str(run)]
    for setting in (
        *("reward.method=that", "train.env_runners=0", "train.envs_per_runner=8", "train.env_steps=8192"),
        *("train.checkpoint_every=1", "evaluation.episodes=4", "evaluation.curve_episodes=2"),
    ):
        command += ["--set", setting]
    stopped = carl(*command)
    deadline = time.monotonic() + 200
    while not list(run.glob("training/that/checkpoints/*/state.json")):
        assert stopped.poll() is None, stopped.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stopped.send_signal(signal.SIGINT)
    output = stopped.communicate(timeout=60)[0]
    assert stopped.returncode == 130, output
    assert not (run / "training/sparse").exists()

    again = carl(*command)
    output = again.communicate(timeout=250)[0]
    assert again.returncode == 0, output
    result = json.loads((run / "result.json").read_text())
    assert list(result["evaluation"]["arms"]) == ["that", "sparse+progress", "sparse"]
    assert (result["reward"]["kind"], result["measured"], result["env_steps"] >= 8192) == ("that", {"gain": 1.0}, True)
    *_, last = (run / "training/that/curve.jsonl").read_text().splitlines()
    assert json.loads(last)["reward_version"] >= 2, "the teacher published a second version"
    generation = [json.loads(path.read_text())["generation"] for path in run.glob("training/that/checkpoints/*/*.json")]
    assert max(generation) == 1, "it was resumed, not begun anew"
    report = (run / "report.html").read_text()
    assert "reward of steps" in report
    assert "VLM" not in report, "nobody looks for a program where the method has none"
    assert "No VLM was asked." in output

    left = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    twice = carl(*command)
    assert twice.wait(100) == 0, twice.communicate()[0]
    changed = {path.name for path, when in left.items() if path.stat().st_mtime_ns != when}
    assert changed <= {"config.json", "stages.json", "result.json", "report.html", "run.lock"}
