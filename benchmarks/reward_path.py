"""What a reward costs on its way: camera, box, cache, env runner, training, faults. DoorKey-8x8, unless said.

Every ratio is of two things measured in one run of this script, in turns, as the median over the turns; only with
faults there is one training, between two without. The program is the one that the embedded VLM writes for the task.
Environments act at random, or by an untrained policy. The last line is JSON.

    python benchmarks/reward_path.py --only camera --only box
"""

from common import run
from doorkey import TASK
from reward_faults import faults
from reward_parts import asking, box, camera, opening
from reward_runs import env_runner, hops, training
from reward_swap import swap

SECTIONS = {
    "camera": camera,
    "box": box,
    "opening": opening,
    "asking": asking,
    "env_runner": env_runner,
    "hops": hops,
    "training": training,
    "swap": swap,
    "faults": faults,
}


if __name__ == "__main__":
    run("reward_path", SECTIONS, task=TASK)
