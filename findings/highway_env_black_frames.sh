#!/usr/bin/env bash
# highway-env==1.12.1 (gymnasium 1.2.2)
#
# With SDL_VIDEODRIVER=dummy, which other packages need or recommend where there is no display, highway-env draws
# nothing: rgb_array frames come without an error or a warning, in the right size, and are black throughout. Its viewer
# takes the variable for a wish not to draw. Without the variable it draws the same scene off screen.
#
# Seen: SDL_VIDEODRIVER=dummy: (150, 600, 3), brightest pixel 0
#       unset:                 (150, 600, 3), brightest pixel 255
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check highway-env==1.12.1 gymnasium==1.2.2
"$work/venv/bin/python" -W ignore - <<'EOF'
import os
from importlib.metadata import version

import gymnasium as gym
import highway_env

gym.register_envs(highway_env)


def picture(driver):
    os.environ.pop("SDL_VIDEODRIVER", None)
    if driver:
        os.environ["SDL_VIDEODRIVER"] = driver
    env = gym.make("highway-fast-v0", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(1)
    frame = env.render()
    env.close()
    return frame


print("highway-env", version("highway-env"))
blind, seen = picture("dummy"), picture(None)
print("SDL_VIDEODRIVER=dummy:", blind.shape, "brightest pixel", blind.max())
print("unset:                ", seen.shape, "brightest pixel", seen.max())
assert blind.shape == seen.shape
assert blind.max() == 0 and seen.max() > 0, "the behaviour changed"
EOF
