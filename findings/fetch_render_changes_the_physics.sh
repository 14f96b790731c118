#!/usr/bin/env bash
# gymnasium-robotics==1.4.2, mujoco==3.3.0, gymnasium==1.2.2; needs EGL (MUJOCO_GL=egl)
#
# Drawing FetchPickAndPlace-v4 changes what happens in it: before it draws, render() calls mj_forward, and the next step
# starts from another state than it would have. With the same seed and actions an episode that is rendered and one that is
# not observe different things; two that are not rendered observe the same.
#
# Seen: largest difference in 25 observations: 0.008 with render() and without, 0.0 twice without
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check gymnasium-robotics==1.4.2 mujoco==3.3.0 gymnasium==1.2.2
MUJOCO_GL=egl "$work/venv/bin/python" -W ignore - <<'EOF'
from importlib.metadata import version

import gymnasium as gym
import gymnasium_robotics
import numpy as np

gym.register_envs(gymnasium_robotics)


def observed(render):
    env = gym.make("FetchPickAndPlace-v4", render_mode="rgb_array")
    observation, _ = env.reset(seed=3)
    env.action_space.seed(0)
    seen = []
    for _ in range(25):
        if render:
            env.render()
        observation = env.step(env.action_space.sample())[0]
        seen.append(observation["observation"])
    env.close()
    return np.array(seen)


print("gymnasium-robotics", version("gymnasium-robotics"), "mujoco", version("mujoco"))
plain = observed(False)
filmed, again = np.abs(plain - observed(True)).max(), np.abs(plain - observed(False)).max()
print(f"largest difference in 25 observations: {filmed:.3f} with render() and without, {again} twice without")
assert filmed > 1e-4 and again == 0, "the behaviour changed"
EOF
