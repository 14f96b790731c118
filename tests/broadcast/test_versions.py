from collections import Counter

from carl.broadcast.versions import Overview
from tests.fakes.corridor import Furthest
from tests.fakes.near_channel import NearChannel


def test_the_overview_tells_what_is_stale_and_logs_a_refusal_once(caplog):
    channel = NearChannel()
    overview = Overview(channel)
    overview.look()
    assert overview.stale(Counter({0: 5})) == 0, "nothing was published"
    channel.publish(Furthest())
    channel.publish(Furthest(scale=2.0))
    overview.look()
    assert overview.stale(Counter({1: 3, 2: 4})) == 3
    assert overview.source_id(1) == "furthest-1.0"
    assert overview.source_id(9) is None
    channel.acknowledge("runner-1", 1)
    overview.look()
    assert [offer.version for offer in overview.in_use] == [2, 1], "the newest may still be adopted"
    channel.refuse("runner-1", 2, "no room")
    overview.look()
    overview.look()
    assert caplog.text.count("runner-1 refused reward version 2: no room") == 1
    assert [offer.version for offer in overview.in_use] == [1]
    channel.acknowledge("runner-2", 2)
    overview.look()
    assert [offer.version for offer in overview.in_use] == [2, 1], "somebody adopted it"
    channel.die()
    overview.look()
    overview.look()
    assert caplog.text.count("goes on with the last reward") == 1
    assert overview.stale(Counter({1: 3})) == 3
