"""What a directory records of its training, by this version and those before."""

import json

import pytest

from carl.artefacts import SUBJECT
from carl.errors import ConfigError, StoreError
from carl.rewards.latch import PROGRESS
from carl.rewards.mix import Mix
from carl.training.checkpoint import ALGORITHM, Progressed
from carl.training.policy import Policy
from carl.training.rllib.stored import CONSTRUCTION, MODULE_PATH
from carl.training.training import Training
from tests.fakes.corridor import CORRIDOR, Furthest


class Empty:
    """An algorithm without weights."""

    def save_to_path(self, path):
        (path / MODULE_PATH).mkdir(parents=True)
        (path / MODULE_PATH / CONSTRUCTION).write_bytes(b"ccarl.training.nowhere\nNetworks\n.")


def training(directory, **changes) -> Training:
    settings = {"source": Furthest(), "mix": Mix(env=0.5, shows=PROGRESS), "run_seed": 3} | changes
    return Training(task=CORRIDOR, directory=directory, **settings)


def test_a_mix_recorded_under_its_older_names_is_the_same(tmp_path):
    run = training(tmp_path)
    run.checkpoints.save(Empty(), Progressed(env_steps=5))
    run.begin()
    recorded = json.loads((tmp_path / SUBJECT).read_text())
    older = recorded | {"mix": {"code": 1.0, "env": 0.5, "progress": True}}
    (tmp_path / SUBJECT).write_text(json.dumps(older))
    run.begin()
    assert json.loads((tmp_path / SUBJECT).read_text()) == recorded
    for other in ({"code": 1.0, "env": 0.0, "progress": True}, {"code": 1.0, "env": 0.5, "progress": False}):
        (tmp_path / SUBJECT).write_text(json.dumps(older | {"mix": other}))
        with pytest.raises(ConfigError, match="holds a training of"):
            run.begin()


def test_a_policy_of_classes_that_are_nowhere_is_refused_in_one_sentence(tmp_path):
    checkpoint = training(tmp_path).checkpoints.save(Empty(), Progressed(env_steps=5))
    assert (checkpoint / ALGORITHM).is_dir()
    with pytest.raises(StoreError, match=r"another version of carl or Ray \(ModuleNotFoundError: .*; train again$"):
        Policy.of(checkpoint)
