import pytest
import ray

from carl.errors import ResourceError
from carl.training.channel import ChannelClient, RewardChannel, reward_channel
from tests.fakes.corridor import Furthest


def test_versions_count_up_from_the_last_one_used():
    channel = RewardChannel(version=4)
    assert channel.offers() == []
    assert channel.publish("a") == 5
    assert channel.publish("b") == 6
    assert [(offer.version, offer.payload) for offer in channel.offers()] == [(6, "b"), (5, "a")]
    assert [offer.version for offer in channel.offers(after=5)] == [6]


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
        assert client.offers() == [], "nothing was published"
        assert client.publish(Furthest(scale=3.0)) == 1
        (offer,) = client.offers()
        assert (offer.version, offer.source_id, offer.source()) == (1, "furthest-3.0", Furthest(scale=3.0))
        assert client.offers(after=1) == []
    with pytest.raises(ResourceError, match="run the training again"):
        client.offers(1)


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
