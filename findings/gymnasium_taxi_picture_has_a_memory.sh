#!/usr/bin/env bash
# gymnasium==1.2.2 (pygame-ce 2.5.8)
#
# The picture of Taxi-v3 does not follow from its state: render() notes which way the taxi faces, and only when it is
# called after a movement. Whoever renders at the end alone, or now and then, gets another picture of the same state than
# whoever renders every step, so episodes that are replayed to be filmed later differ from those filmed as they are played.
#
# Seen: same state: True; same picture: False, 347 pixels differ
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check gymnasium==1.2.2 pygame-ce==2.5.8
SDL_VIDEODRIVER=dummy SDL_AUDIODRIVER=dummy "$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version

import gymnasium as gym
import numpy as np

NORTH, PICK_UP = 1, 4


def last_picture(every_step):
    env = gym.make("Taxi-v3", render_mode="rgb_array")
    env.reset(seed=0)
    for action in (NORTH, PICK_UP):
        env.step(action)
        if every_step:
            env.render()
    return env.unwrapped.s, env.render()


print("gymnasium", version("gymnasium"))
state, filmed = last_picture(True)
again, once = last_picture(False)
differing = int((filmed != once).any(axis=2).sum())
print(f"same state: {state == again}; same picture: {not differing}, {differing} pixels differ")
assert state == again and differing, "the behaviour changed"
EOF
