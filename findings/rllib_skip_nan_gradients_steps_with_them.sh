#!/usr/bin/env bash
# ray==2.60.0 with its extra rllib (gymnasium 1.2.2), torch==2.13.0
#
# `torch_skip_nan_gradients=True` is documented to skip an update entirely if a gradient holds a NaN, and the warning
# that RLlib logs without it recommends it for that. It does the contrary: the check before optimizer.step() is left
# out, and one NaN or infinite gradient makes the weights NaN. Without it, a NaN becomes 0 as documented; an infinity,
# which the warning says becomes 0 as well, becomes float32's largest number. Adam's mean square of that is infinite
# from then on, so the weights stay finite and no longer move. One would expect True to leave the weights as they were,
# and a next, finite gradient to move them with either setting.
#
# Seen: skip True, gradient nan: optimizer got nan, weights finite False; then a gradient of 1 moves them by nan
#       skip True, gradient inf: optimizer got inf, weights finite False; then a gradient of 1 moves them by nan
#       skip False, gradient nan: optimizer got 0, weights finite True; then a gradient of 1 moves them by 3.7e-05
#       skip False, gradient inf: optimizer got 3.40282e+38, weights finite True; then a gradient of 1 moves them by 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "ray[rllib]==2.60.0" gymnasium==1.2.2 torch==2.13.0
PYTHONWARNINGS=ignore "$work/venv/bin/python" - 2>"$work/log" <<'EOF' || { tail -n 20 "$work/log"; exit 1; }
import math
from importlib.metadata import version

import gymnasium as gym
import torch
from ray.rllib.algorithms.ppo import PPOConfig


def update(skip, value):
    """The gradient that the optimizer got, the weights' being finite, and how far a next gradient of 1 moves them."""
    config = PPOConfig().framework("torch", torch_skip_nan_gradients=skip).environment("CartPole-v1")
    learner = config.build_learner(env=gym.make("CartPole-v1"))
    learner.build()
    name, weights = next(iter(learner._params.items()))
    learner.apply_gradients({name: torch.full_like(weights, value)})
    got, after = weights.grad.max().item(), weights.detach().clone()
    learner.apply_gradients({name: torch.ones_like(weights)})
    moved = (weights.detach() - after).abs().max().item()
    finite = torch.isfinite(after).all().item()
    print(f"skip {skip}, gradient {value}: optimizer got {got:g}, weights finite {finite}; "
          f"then a gradient of 1 moves them by {moved:.2g}")
    return got, finite, moved


print("ray", version("ray"), "torch", version("torch"))
for value in (math.nan, math.inf):
    got, finite, moved = update(True, value)
    assert not math.isfinite(got) and not finite, "the behaviour changed"
got, finite, moved = update(False, math.nan)
assert got == 0 and finite and moved > 0, "the behaviour changed"
got, finite, moved = update(False, math.inf)
assert got == torch.finfo(torch.float32).max and finite and moved == 0, "the behaviour changed"
EOF
