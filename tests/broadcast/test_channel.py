import asyncio
import math
import threading

import pytest
import ray

from carl.broadcast.channel import KEPT, SMALL_BYTES, ChannelClient, RewardChannel, reward_channel
from carl.broadcast.follower import Follower
from carl.errors import ResourceError
from tests.fakes.corridor import Furthest, Shut


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


def test_versions_that_nobody_is_paid_by_are_forgotten():
    channel = RewardChannel()
    for payload in "abc":
        channel.publish(payload)
    channel.acknowledge("one", 3)
    channel.acknowledge("two", 2)
    assert [offer.version for offer in channel.offers()] == [3]
    channel = RewardChannel()
    channel.acknowledge("gone for good", 1)
    for number in range(40):
        channel.publish(number)
    assert len(channel.offers()) == KEPT


def test_who_watches_hears_of_the_next_version_and_acknowledges_the_last():
    async def scene() -> None:
        channel = RewardChannel()
        channel.publish("a")
        assert [offer.version for offer in await channel.watch("one", 0, 0)] == [1]
        watching = asyncio.create_task(channel.watch("one", 1, 1))
        await asyncio.sleep(0)
        assert channel.acknowledgements() == {"one": 1}
        assert not watching.done()
        channel.publish("b")
        assert [offer.version for offer in await watching] == [2]
        channel.acknowledge("one", 2)
        await channel.watch("one", 0, 1)
        assert channel.acknowledgements() == {"one": 2}, "a call that was overtaken takes nothing back"

    asyncio.run(scene())


def test_who_leaves_or_waits_for_long_is_told_of_nothing(monkeypatch):
    async def scene() -> None:
        channel = RewardChannel()
        watching = asyncio.create_task(channel.watch("one", 0, 0))
        await asyncio.sleep(0)
        channel.leave("one")
        channel.leave("one")
        assert await watching == []
        monkeypatch.setattr("carl.broadcast.channel.WATCH_S", 0.01)
        assert await channel.watch("one", 0, 0) == []

    asyncio.run(scene())


def test_answers_say_who_acknowledged_when_who_refused_and_who_is_missing():
    async def scene() -> None:
        channel = RewardChannel()
        for name in ("early", "late", "fallen", "mute"):
            watching = asyncio.create_task(channel.watch(name, 0, 0))
            await asyncio.sleep(0)
            del watching
        assert math.isnan((await channel.answers(channel.publish("a"), [], 0.01)).latency_s)
        channel.refuse("fallen", 1, "why not")
        channel.acknowledge("early", 1)
        await asyncio.sleep(0.02)
        channel.publish("b")
        channel.refuse("late", 2, "not this one")
        channel.acknowledge("late", 1)
        channel.acknowledge("stranger", 2)
        answers = await channel.answers(1, None, 0.05)
        assert answers.refused == {"fallen": "why not"}
        assert answers.missing == {"mute"}
        assert set(answers.seconds) == {"early", "late"}
        assert 0.0 <= answers.seconds["early"] < answers.seconds["late"] == answers.latency_s
        answers = await channel.answers(2, ["late", "stranger"], 0.05)
        assert (set(answers.seconds), set(answers.refused)) == ({"stranger"}, {"late"})
        waiting = asyncio.create_task(channel.answers(2, ["early"], 10))
        await asyncio.sleep(0)
        channel.acknowledge("early", 2)
        assert not (await waiting).missing

    asyncio.run(scene())


@pytest.mark.usefixtures("ray_cluster")
def test_publishing_can_wait_for_all_who_listen():
    opened = []

    def adopt(version, source):
        source.open(1)
        opened.append((version, source.id))

    with reward_channel() as client:
        client.publish(Furthest())
        followers = [Follower(client, f"follower-{index}", adopt) for index in range(5)]
        for follower in followers:
            follower.begin()
            follower.listen()
        large = Furthest(scale=2.0, blind=frozenset(range(SMALL_BYTES)))
        answers = client.wait_acknowledged(client.publish(large), [f"follower-{index}" for index in range(5)])
        assert len(answers.seconds) == 5
        assert 0.0 < answers.latency_s == max(answers.seconds.values())
        assert opened[5:] == [(2, "furthest-2.0")] * 5
        answers = client.wait_acknowledged(client.publish(Shut()))
        assert answers.refused == {f"follower-{index}": "BoxError: no room for a box" for index in range(5)}
        assert client.wait_acknowledged(3, ["nobody"], timeout_s=0.05).missing == {"nobody"}
        followers[0].close()
        ray.kill(ray.get_actor(client.name))
        for thread in threading.enumerate():
            if thread.name.startswith("carl-follower"):
                thread.join(10)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("carl-follower")]
        assert [follower.version for follower in followers] == [2] * 5


@pytest.mark.usefixtures("ray_cluster")
def test_a_source_travels_through_the_actor_once():
    with reward_channel() as client:
        assert client.offers() == [], "nothing was published"
        assert client.publish(Furthest(scale=3.0)) == 1
        (offer,) = client.offers()
        assert (offer.version, offer.source_id, offer.source()) == (1, "furthest-3.0", Furthest(scale=3.0))
        assert isinstance(offer.payload, bytes), "a small source is not fetched"
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
