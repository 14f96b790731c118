#!/usr/bin/env bash
# gymnasium==1.2.2 (numpy 2.4.6)
#
# A vector environment batches its sub-environments' `info` into an array for each key, whose dtype is that of the first
# slot that has the key; later slots' values are cast to it without a word. 0.5 in slot 1 is 0 beside an int in slot 0,
# and 7 is True beside a bool. A Python True comes back as numpy.True_, so `info["success"][0] is True` is false. The
# mask of `key` is stored as `_key`, over whatever a sub-environment itself put under that name. One would expect values
# to come through as they were, or an error. (AsyncVectorEnv batches by the same method.)
#
# Seen: gap 0 and 0.5: [0, 0]; gap 0.5 and 0: [0.5, 0.0]
#       found False and 7: [False, True]; found True: numpy.bool, is True: False
#       _speed 9.5 beside speed 2.0: [1.0]; speed 2.0 beside _speed 9.5: [True]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check gymnasium==1.2.2 numpy==2.4.6
"$work/venv/bin/python" - <<'EOF'
from functools import partial
from importlib.metadata import version

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv


class Informs(gym.Env):
    observation_space = action_space = gym.spaces.Discrete(1)

    def __init__(self, info):
        self.info = info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, dict(self.info)


def batch(*infos):
    return SyncVectorEnv([partial(Informs, info) for info in infos]).reset()[1]


print("gymnasium", version("gymnasium"), "numpy", version("numpy"))
cast, kept = batch({"gap": 0}, {"gap": 0.5})["gap"].tolist(), batch({"gap": 0.5}, {"gap": 0})["gap"].tolist()
print(f"gap 0 and 0.5: {cast}; gap 0.5 and 0: {kept}")
mixed, found = batch({"found": False}, {"found": 7})["found"].tolist(), batch({"found": True})["found"][0]
kind = f"{type(found).__module__}.{type(found).__name__}"
print(f"found False and 7: {mixed}; found True: {kind}, is True: {found is True}")
before, behind = batch({"_speed": 9.5, "speed": 2.0})["_speed"], batch({"speed": 2.0, "_speed": 9.5})["_speed"]
print(f"_speed 9.5 beside speed 2.0: {before.tolist()}; speed 2.0 beside _speed 9.5: {behind.tolist()}")
assert cast == [0, 0] and kept == [0.5, 0.0] and mixed == [False, True] and found is not True, "the behaviour changed"
assert before.tolist() == [1.0] and behind.tolist() == [True], "the behaviour changed"
EOF
