import sys
from importlib.util import find_spec

import gymnasium as gym
import numpy as np
import pytest

from carl.config import TrainConfig
from carl.training.rllib import network
from carl.training.rllib.algorithms import untrained
from carl.training.rllib.stored import CONSTRUCTION, MODULE_PATH, MOVED, read_module
from tests.fakes.corridor import CORRIDOR

SEEN, DONE = gym.spaces.Box(0, 1, (5,), np.float32), gym.spaces.Discrete(2)


def is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize(("before", "now"), MOVED.items())
def test_what_moved_is_gone_there_and_is_here(before, now):
    assert not is_there(before)
    assert is_there(now)


@pytest.mark.parametrize("older", [False, True])
def test_a_module_is_read_that_was_written_before_its_classes_moved(tmp_path, monkeypatch, older):
    module = untrained(CORRIDOR, TrainConfig(), SEEN, DONE)
    with monkeypatch.context() as before:
        if older:
            before.setitem(sys.modules, "carl.training.network", network)
            before.setattr(network.PPONetworks, "__module__", "carl.training.network")
        module.save_to_path(tmp_path / MODULE_PATH)
    assert (b"carl.training.network" in (tmp_path / MODULE_PATH / CONSTRUCTION).read_bytes()) is older
    read, written = read_module(tmp_path).get_state(), module.get_state()
    assert read.keys() == written.keys()
    for key, value in written.items():
        np.testing.assert_array_equal(read[key], value)


def test_a_class_that_is_nowhere_is_an_error(tmp_path):
    (tmp_path / MODULE_PATH).mkdir(parents=True)
    (tmp_path / MODULE_PATH / CONSTRUCTION).write_bytes(b"ccarl.training.nowhere\nNetworks\n.")
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        read_module(tmp_path)
