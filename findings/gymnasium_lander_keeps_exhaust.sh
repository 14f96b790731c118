#!/usr/bin/env bash
# gymnasium==1.2.2, box2d==2.3.10 (pygame-ce 2.5.8)
#
# LunarLander-v3 throws a particle into its physics for every firing of an engine, and takes particles out again in
# render() alone. A training that does not render simulates all of them to the end of the episode: the world of an
# unrendered episode grows with every firing, that of a rendered one does not. Observations stay the same.
#
# Seen: after 60 steps: 34 bodies without render(), 7 with it; same observation: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check gymnasium==1.2.2 box2d==2.3.10 pygame-ce==2.5.8
SDL_VIDEODRIVER=dummy SDL_AUDIODRIVER=dummy "$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version

import gymnasium as gym
import numpy as np


def fly(render):
    env = gym.make("LunarLander-v3", render_mode="rgb_array")
    env.reset(seed=0)
    for step in range(60):
        observation = env.step(2 if step % 2 else 0)[0]
        if render:
            env.render()
    return env.unwrapped.world.bodyCount, observation


print("gymnasium", version("gymnasium"), "box2d", version("box2d"))
unseen, observation = fly(False)
seen, same = fly(True)
print(f"after 60 steps: {unseen} bodies without render(), {seen} with it; same observation: {np.array_equal(observation, same)}")
assert np.array_equal(observation, same) and unseen >= 2 * seen, "the behaviour changed"
EOF
