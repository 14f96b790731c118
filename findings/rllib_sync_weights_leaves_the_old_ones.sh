#!/usr/bin/env bash
# ray==2.60.0 with its extra rllib (gymnasium 1.2.2), torch==2.13.0
#
# env_runner_group.sync_weights(from_worker_or_learner_group=...) is documented to sync weights from a learner group to
# the env runners. After learner_group.set_weights it does so only before the first update: a runner takes weights whose
# sequence number is larger than that of its own, and only an update of a learner raises it. So after a training
# iteration, weights that were set on the learners never reach the runners, without a message; they sample on with the
# old ones until the next update. Handing them to each runner does it.
#
# Seen: before an update: the learner has the new weights True, the env runner True
#       after an iteration: the learner has the new weights True, the env runner False; handed over True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "ray[rllib]==2.60.0" gymnasium==1.2.2 torch==2.13.0
PYTHONWARNINGS=ignore "$work/venv/bin/python" - 2>"$work/log" <<'EOF' || { tail -n 20 "$work/log"; exit 1; }
from importlib.metadata import version

import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPOConfig

torch.set_num_threads(1)


def zero(state):
    return not any(np.any(np.asarray(value)) for value in state.values())


def zeroed(iterations):
    """After so many iterations, whether the learner and the env runner have the zeros that the learners were given."""
    config = PPOConfig().environment("CartPole-v1").env_runners(num_env_runners=0)
    algorithm = config.training(train_batch_size=200, minibatch_size=100, num_epochs=1).build_algo()
    for _ in range(iterations):
        algorithm.train()
    learners, runner = algorithm.learner_group, algorithm.env_runner
    learners.set_weights({"default_policy": {k: v * 0 for k, v in learners.get_weights()["default_policy"].items()}})
    algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=learners, inference_only=True)
    found = [zero(learners.get_weights()["default_policy"]), zero(runner.module.get_state())]
    runner.module.set_state(learners.get_weights()["default_policy"])
    found.append(zero(runner.module.get_state()))
    algorithm.stop()
    return found


before, after = zeroed(0), zeroed(1)
print("ray", version("ray"))
print(f"before an update: the learner has the new weights {before[0]}, the env runner {before[1]}")
print(f"after an iteration: the learner has the new weights {after[0]}, the env runner {after[1]}; handed over {after[2]}")
assert (before, after) == ([True, True, True], [True, False, True]), "the behaviour changed"
EOF
