"""The sources that a training is paid by, before and after a stop."""

import json
from pathlib import Path

import pytest

from carl.artefacts import PUBLISHED, STATE
from carl.errors import StoreError
from carl.training.checkpoint import Checkpoints, Progressed, check
from carl.training.sources import Sources, sources_of
from tests.fakes.corridor import Furthest
from tests.fakes.finished import Weights

OWN, SECOND, THIRD = (Furthest(scale=scale) for scale in (1.0, 2.0, 3.0))


def saved(folder: Path, sources: Sources) -> Path:
    return Checkpoints(folder).save(Weights(), Progressed(env_steps=5, reward_version=2), sources)


def test_a_checkpoint_keeps_what_pays_and_what_has_not_arrived() -> None:
    sources = Sources(OWN).add(2, SECOND).add(3, THIRD)
    assert [sources.at(version) for version in (1, 2, 3, 4)] == [OWN, SECOND, THIRD, THIRD]
    assert sources.alive(3).published == ((3, THIRD),)
    assert sources.alive(2).in_turn(2) == [SECOND, THIRD], "the newest may be refused"
    assert sources.alive(2, refused=[3]).in_turn(2) == [SECOND]
    assert sources.alive(1).in_turn(1) == [OWN, SECOND, THIRD]
    assert Sources(None).in_turn(0) == []


def test_what_was_published_lies_in_the_checkpoint_and_counts_for_the_same_source_only(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, Sources(OWN).add(2, SECOND))
    assert sources_of(checkpoint, OWN).at(2) == SECOND
    assert sources_of(checkpoint, THIRD).at(2) == THIRD, "the run's own is another by now"
    assert sources_of(None, OWN).published == ()
    check(checkpoint)
    assert Progressed.read(checkpoint / STATE).reward_version == 2
    (checkpoint / PUBLISHED).write_bytes(b"cut sh")
    with pytest.raises(StoreError, match="is not what was saved"):
        check(checkpoint)
    with pytest.raises(StoreError, match="install what it was made with"):
        sources_of(checkpoint, OWN)


def test_a_checkpoint_in_which_nothing_was_replaced_is_as_before(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, Sources(OWN))
    assert not (checkpoint / PUBLISHED).exists()
    assert set(json.loads((checkpoint / STATE).read_text())) - set(Progressed.__dataclass_fields__) == {"sha256"}
    assert sources_of(checkpoint, OWN) == Sources(OWN)
