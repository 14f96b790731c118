#!/usr/bin/env bash
# crafter==1.8.3 (numpy 2.4.6)
#
# render() is part of the game: in the dark it draws the noise of its picture from the very generator that moves cows and
# zombies. step() has rendered once already for its observation; looking once more, to record a video say, gives another
# game from there on. In daylight it does not, so a short test sees nothing.
#
# Seen: generator moved by render(): by day (step 1) False, by night (step 150) True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check crafter==1.8.3 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version

import crafter
import numpy as np


def moved_by_looking(env):
    before = env._world.random.get_state()
    env.render()
    after = env._world.random.get_state()
    return before[2] != after[2] or not np.array_equal(before[1], after[1])


env = crafter.Env(seed=1)
env.reset()
found = {}
for step in range(1, 151):
    _, _, over, _ = env.step(0)
    if step in (1, 150):
        found[step] = moved_by_looking(env)
    assert not over
print("crafter", version("crafter"))
print(f"generator moved by render(): by day (step 1) {found[1]}, by night (step 150) {found[150]}")
assert found == {1: False, 150: True}, "the behaviour changed"
EOF
