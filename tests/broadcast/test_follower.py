import threading
import time

import pytest

from carl.broadcast.follower import Follower
from carl.errors import BoxError, ResourceError
from tests.fakes.corridor import Furthest, Shut
from tests.fakes.near_channel import NearChannel

UNFETCHED = "reward version 2: fetching it raised ModuleNotFoundError: theirs; mend the source and publish it again"


class Holder:
    """Adopts sources by opening them, for follower ``name``; can be told to take its time."""

    def __init__(self, channel: NearChannel, name: str = "holder") -> None:
        self.adopted: list[tuple[int, str]] = []
        self.may_open = threading.Event()
        self.may_open.set()
        self.follower = Follower(channel, name, self.adopt)

    def adopt(self, version, source) -> None:
        assert self.may_open.wait(10)
        source.open(1)
        self.adopted.append((version, source.id))


@pytest.fixture
def channel() -> NearChannel:
    channel = NearChannel()
    channel.publish(Furthest())
    return channel


@pytest.fixture
def holder(channel):
    holder = Holder(channel)
    yield holder
    holder.follower.close()
    assert not listening()


def listening(name: str = "holder") -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"carl-{name}"]


def eventually(condition) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_what_is_published_is_adopted_and_acknowledged_at_once(channel, holder):
    holder.follower.begin()
    holder.follower.listen()
    channel.publish(Furthest(scale=2.0))
    assert eventually(lambda: channel.acknowledgements() == {"holder": 2})
    assert holder.adopted == [(1, "furthest-1.0"), (2, "furthest-2.0")]
    assert holder.follower.version == 2


def test_pulling_waits_until_what_the_thread_adopts_is_ready(channel, holder):
    holder.follower.begin()
    holder.follower.listen()
    holder.may_open.clear()
    channel.publish(Furthest(scale=2.0))
    assert eventually(lambda: holder.follower._seen == 2)
    threading.Timer(0.2, holder.may_open.set).start()
    assert holder.follower.version == 1
    holder.follower.pull()
    assert holder.follower.version == 2
    assert [version for version, _ in holder.adopted] == [1, 2], "opened once only"


@pytest.mark.parametrize(
    ("source", "reason"),
    [(Shut(), "BoxError: no room for a box"), (ModuleNotFoundError("theirs"), f"RewardError: {UNFETCHED}")],
)
def test_a_source_that_cannot_be_opened_or_fetched_is_refused_by_name_once(channel, holder, source, reason, caplog):
    holder.follower.begin()
    holder.follower.listen()
    channel.publish(source)
    assert eventually(lambda: channel.refusals() == {"holder": (2, reason)})
    holder.follower.pull()
    assert holder.follower.version == 1
    assert caplog.text.count(f"holder refuses reward version 2 and keeps 1: {reason}") == 1
    channel.publish(Furthest(scale=3.0))
    assert eventually(lambda: channel.acknowledgements() == {"holder": 3})


def test_who_begins_falls_back_to_the_newest_version_that_opens(channel, holder):
    channel.publish(Furthest(scale=2.0))
    channel.publish(Shut())
    holder.follower.begin()
    assert holder.follower.version == 2
    assert channel.acknowledgements() == {"holder": 2}
    assert set(channel.refusals()) == {"holder"}
    holder.follower.pull()
    assert [version for version, _ in holder.adopted] == [2], "neither what was refused nor what is older is tried"


def test_who_begins_with_nothing_that_opens_says_why():
    channel = NearChannel()
    channel.publish(Shut())
    with pytest.raises(BoxError, match="no room"):
        Holder(channel).follower.begin()
    channel.die()
    with pytest.raises(ResourceError):
        Holder(channel).follower.begin()


def test_a_channel_that_dies_ends_the_thread_with_one_line(channel, holder, caplog):
    holder.follower.begin()
    holder.follower.listen()
    assert eventually(lambda: "holder" in channel.listening)
    channel.die()
    assert eventually(lambda: not listening())
    holder.follower.pull()
    assert caplog.text.count("holder keeps reward version 1") == 1


def test_closing_ends_the_thread_even_while_it_opens_a_source(channel, holder):
    holder.follower.begin()
    holder.follower.listen()
    assert len(listening()) == 1
    holder.may_open.clear()
    channel.publish(Furthest(scale=2.0))
    assert eventually(lambda: holder.follower._seen == 2)
    threading.Timer(0.2, holder.may_open.set).start()
    holder.follower.close()
    assert not listening()
    assert channel.listening == set()
    holder.follower.close()
