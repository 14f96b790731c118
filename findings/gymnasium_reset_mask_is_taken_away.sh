#!/usr/bin/env bash
# gymnasium==1.2.2
#
# SyncVectorEnv.reset(options={"reset_mask": mask}) resets the slots in the mask alone, and takes "reset_mask" out of
# the caller's own dict. Options that are built once and used again reset every slot the second time, running episodes
# too, and a wrapper that looks at the options after its inner reset finds no mask. One would expect the caller's dict
# to stay as it was.
#
# Seen: first reset: slots [True, False] begin anew, options keep ['level']
#       again with the same options: slots [True, True] begin anew
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check gymnasium==1.2.2
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class Counts(gym.Env):
    """Observes the steps since its reset."""

    observation_space, action_space = gym.spaces.Discrete(100), gym.spaces.Discrete(1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return 0, {}

    def step(self, action):
        self.steps += 1
        return self.steps, 0.0, False, False, {}


def begun():
    env.step(np.zeros(2, dtype=int))
    return (env.reset(options=options)[0] == 0).tolist()


print("gymnasium", version("gymnasium"))
env = SyncVectorEnv([Counts, Counts], autoreset_mode=AutoresetMode.DISABLED)
env.reset()
options = {"reset_mask": np.array([True, False]), "level": 3}
first, kept = begun(), sorted(options)
print(f"first reset: slots {first} begin anew, options keep {kept}")
again = begun()
print(f"again with the same options: slots {again} begin anew")
assert first == [True, False] and kept == ["level"] and again == [True, True], "the behaviour changed"
EOF
