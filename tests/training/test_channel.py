import pytest
import ray

from carl.errors import ResourceError
from carl.training.channel import ChannelClient, RewardChannel, reward_channel
from tests.fakes.corridor import Furthest


def test_versions_count_up_from_the_last_one_used():
    channel = RewardChannel(version=4)
    assert channel.current() == (4, None)
    assert channel.publish("a") == 5
    assert channel.publish("b") == 6
    assert channel.current() == (6, "b")


def test_acknowledgements_and_births_are_kept_by_runner():
    channel = RewardChannel()
    channel.acknowledge("runner-1", 1)
    channel.acknowledge("runner-1", 2)
    channel.acknowledge("runner-2", 1)
    assert channel.acknowledgements() == {"runner-1": 2, "runner-2": 1}
    assert [channel.enroll("runner-1"), channel.enroll("runner-1"), channel.enroll("runner-2")] == [0, 1, 0]
    assert channel.births() == {"runner-1": 2, "runner-2": 1}


@pytest.mark.usefixtures("ray_cluster")
def test_a_source_travels_through_the_actor_once():
    with reward_channel() as client:
        assert client.newer_than(0) is None, "nothing was published"
        assert client.publish(Furthest(scale=3.0)) == 1
        version, source = client.newer_than(0)
        assert (version, source) == (1, Furthest(scale=3.0))
        assert client.newer_than(1) is None
    with pytest.raises(ResourceError, match="run the training again"):
        client.newer_than(1)


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_channel_is_named():
    with reward_channel() as client:
        ray.kill(ray.get_actor(client.name))
        with pytest.raises(ResourceError, match="is gone"):
            client.acknowledgements()


@pytest.mark.usefixtures("ray_cluster")
def test_an_unknown_channel_is_named():
    with pytest.raises(ResourceError, match="no-such-channel"):
        ChannelClient("no-such-channel").births()
