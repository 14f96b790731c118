import pytest

from carl.config import TrainConfig
from carl.errors import ResourceError
from carl.rewards.vector import Mix
from carl.training.algorithms import build, check_resources, configure
from carl.training.channel import ChannelClient
from carl.training.runner import RunnerSetup
from tests.fakes.corridor import CORRIDOR, STEERED

pytestmark = pytest.mark.usefixtures("ray_cluster")


def setup(task=CORRIDOR, run_seed: int = 0) -> RunnerSetup:
    return RunnerSetup(task, Mix(), run_seed, ChannelClient("nobody"))


def test_more_runners_than_cpus_is_an_error_that_says_what_to_set():
    with pytest.raises(ResourceError, match=r"5 env runners need 5 CPUs; set train\.env_runners"):
        build(setup(), TrainConfig(env_runners=5))


def test_cpus_that_others_hold_are_waited_for_a_while_and_then_named():
    import ray

    @ray.remote(num_cpus=1)
    class Holder:
        def ready(self) -> bool:
            return True

    holder = Holder.remote()
    ray.get(holder.ready.remote())
    with pytest.raises(ResourceError, match="only 1 of the cluster's 2 CPUs are free"):
        check_resources(configure(setup(), TrainConfig(env_runners=2)), patience_s=0.5)
    ray.kill(holder)
    check_resources(configure(setup(), TrainConfig(env_runners=2)), patience_s=30)


def test_the_task_chooses_the_algorithm_unless_the_user_does():
    assert configure(setup(STEERED), TrainConfig()).algo_class.__name__ == "SAC"
    assert configure(setup(STEERED), TrainConfig(algorithm="ppo")).algo_class.__name__ == "PPO"


def test_neighbouring_runs_and_runners_do_not_share_seeds():
    seeds = {configure(setup(run_seed=run), TrainConfig()).seed + runner for run in range(20) for runner in range(20)}
    assert len(seeds) == 400
