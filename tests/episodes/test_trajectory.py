"""The store: what goes in comes out, column by column too; whatever is damaged is named, never cut away."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carl.artefacts import MANIFEST
from carl.episodes.frames import LazyFrames
from carl.episodes.play import rollout
from carl.episodes.trajectory import Trajectory, TrajectoryStore
from carl.errors import StoreError
from carl.tasks import get_task


def episode(
    seed: int, steps: int = 5, size: tuple[int, int] = (6, 8), action_shape: tuple[int, ...] = ()
) -> Trajectory:
    rng = np.random.default_rng(seed)
    actions = (
        rng.normal(size=(steps, *action_shape)).astype(np.float32) if action_shape else rng.integers(7, size=steps)
    )
    return Trajectory(
        frames=rng.integers(256, size=(steps + 1, *size, 3), dtype=np.uint8),
        actions=actions,
        rewards=rng.normal(size=steps),
        terminated=seed % 2 == 0,
        truncated=seed % 3 == 0,
        success=seed % 2 == 0,
        seed=seed,
        role="expert",
        events={"door open": rng.random(steps + 1) > 0.5},
    )


EPISODES = [episode(seed, steps) for seed, steps in enumerate((5, 1, 9, 3))]


def assert_same(one: Trajectory, other: Trajectory) -> None:
    for name in ("frames", "actions", "rewards"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.dtype == theirs.dtype
        assert np.array_equal(mine, theirs)
    for name in ("terminated", "truncated", "success", "seed", "role"):
        assert getattr(one, name) == getattr(other, name)
    assert one.events.keys() == other.events.keys()
    assert all(np.array_equal(one.events[name], other.events[name]) for name in one.events)


def filled(place: Path) -> TrajectoryStore:
    store = TrajectoryStore(place)
    store.finish([store.write_part(EPISODES[:2]), store.write_part(EPISODES[2:])])
    return store


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    filled(tmp_path / "a")
    store = TrajectoryStore(tmp_path / "a")
    assert len(store) == 4
    for written, found in zip(EPISODES, store.read(), strict=True):
        assert_same(written, found)
    for written, found in zip(EPISODES, store, strict=True):
        assert_same(written, found)


def test_chosen_episodes_come_in_the_order_asked_for(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert [trajectory.seed for trajectory in store.read([3, 0, 2, 0])] == [3, 0, 2, 0]
    with pytest.raises(IndexError):
        store.read([4])


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2)])
def test_continuous_actions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    store = TrajectoryStore(tmp_path)
    store.write([episode(1, action_shape=shape), episode(2, action_shape=shape)])
    assert_same(store.read([1])[0], episode(2, action_shape=shape))


def test_an_episode_is_a_row_group_and_a_frame_a_row(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path)
    store.write(EPISODES)
    file = pq.ParquetFile(next(tmp_path.glob("part-*.parquet")))
    rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert rows == [len(trajectory) + 1 for trajectory in EPISODES]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_columns_are_read_without_touching_the_frames(tmp_path: Path) -> None:
    """Every page of frames is made unreadable, and rewards still come out."""
    store = TrajectoryStore(tmp_path)
    store.write(EPISODES)
    path = next(tmp_path.glob("part-*.parquet"))
    metadata = pq.ParquetFile(path).metadata
    data = bytearray(path.read_bytes())
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(0)
        assert column.path_in_schema == "frame"
        start = column.data_page_offset
        data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    found = TrajectoryStore(tmp_path).read_columns(["reward", "event:door open"])
    assert np.array_equal(found[2]["reward"], EPISODES[2].rewards)
    assert np.array_equal(found[2]["event:door open"], EPISODES[2].events["door open"])
    with pytest.raises(StoreError, match=path.name):
        TrajectoryStore(tmp_path).read()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two frames of an ``episode`` to a chunk."""
    monkeypatch.setattr("carl.episodes.frames.CHUNK_BYTES", 2 * EPISODES[0].frames[0].nbytes)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_a_long_episode_is_several_row_groups_and_comes_out_whole(tmp_path: Path, shape: tuple[int, ...]) -> None:
    written = [episode(seed, steps, action_shape=shape) for seed, steps in enumerate((5, 1, 8))]
    TrajectoryStore(tmp_path).write(written)
    store = TrajectoryStore(tmp_path)
    assert pq.ParquetFile(next(tmp_path.glob("part-*"))).num_row_groups == 3 + 1 + 5
    for one, lazy, loaded in zip(written, store, store.read(), strict=True):
        assert_same(one, lazy)
        assert_same(one, loaded)
        assert isinstance(lazy.frames, LazyFrames)
        assert isinstance(loaded.frames, np.ndarray)
    columns = store.read_columns(["reward", "event:door open"], [2, 0])
    assert np.array_equal(columns[0]["reward"], written[2].rewards)
    assert np.array_equal(columns[1]["event:door open"], written[0].events["door open"])
    assert store.endings("seed") == [0, 1, 2]
    assert store.endings("success") == [True, False, True]


@pytest.mark.usefixtures("small_chunks")
def test_frames_are_read_as_they_are_looked_at(tmp_path: Path) -> None:
    """All frames but those of one chunk are made unreadable, and that one still comes out."""
    TrajectoryStore(tmp_path).write([episode(0, 9)])
    path = next(tmp_path.glob("part-*"))
    metadata, data = pq.ParquetFile(path).metadata, bytearray(path.read_bytes())
    for group in (0, 1, 3, 4):
        column = metadata.row_group(group).column(0)
        start = column.data_page_offset
        data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    frames = TrajectoryStore(tmp_path)[0].frames
    assert np.array_equal(frames[5], episode(0, 9).frames[5])
    with pytest.raises(StoreError, match=path.name):
        frames[6]


@pytest.mark.usefixtures("small_chunks")
def test_an_episode_is_copied_from_store_to_store_in_chunks(tmp_path: Path) -> None:
    filled(tmp_path / "a")
    TrajectoryStore(tmp_path / "b").write(TrajectoryStore(tmp_path / "a"))
    for written, found in zip(EPISODES, TrajectoryStore(tmp_path / "b"), strict=True):
        assert_same(written, found)


def test_a_store_of_the_first_format_is_read(tmp_path: Path) -> None:
    """There an episode is one row group, and the manifest knows neither their rows nor failures."""
    filled(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    manifest["format"] = 1
    del manifest["failed"]
    for part in manifest["parts"]:
        del part["group_rows"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    for written, found in zip(EPISODES, TrajectoryStore(tmp_path), strict=True):
        assert_same(written, found)


def test_episodes_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    for one in EPISODES:
        TrajectoryStore(tmp_path).append([one])
    store = TrajectoryStore(tmp_path)
    store.append([EPISODES[0]])
    for written, found in zip([*EPISODES, EPISODES[0]], store, strict=True):
        assert_same(written, found)
    with pytest.raises(StoreError, match="episodes of one task"):
        store.append([episode(0, size=(8, 8))])
    assert len(TrajectoryStore(tmp_path)) == 5


def test_failures_are_noted_and_stay_noted(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path)
    store.finish([store.write_part(EPISODES)], failed=3)
    store.append(EPISODES[:1])
    assert TrajectoryStore(tmp_path).manifest.failed == 3


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carl.episodes.trajectory.OPEN_FILES", 1)
    filled(tmp_path)
    store = TrajectoryStore(tmp_path)
    side_by_side = list(store)
    for written, found in zip(EPISODES, side_by_side, strict=True):
        assert_same(written, found)
    assert len(store._open) == 1


def test_a_store_travels_after_it_was_read(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.read()
    assert_same(pickle.loads(pickle.dumps(store))[3], EPISODES[3])


def test_an_unknown_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="'velocity'"):
        filled(tmp_path).read_columns(["velocity"])


def test_frames_of_a_gridworld_shrink_many_times_without_loss(tmp_path: Path) -> None:
    """Measured: experts on DoorKey-8x8 take 1/69 of their raw size, random play of 130 steps 1/330."""
    played = rollout(get_task("DoorKey-8x8"), 0, "random", 60)
    store = TrajectoryStore(tmp_path)
    store.write([played])
    assert_same(store.read()[0], played)
    assert store.manifest.parts[0].bytes < played.frames.nbytes / 40


@pytest.mark.parametrize("scheme", ["file", "plain", "relative"])
def test_uris(tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = {"file": f"file://{tmp_path}/deep/store", "plain": f"{tmp_path}/deep/store", "relative": "deep/store"}
    TrajectoryStore(place[scheme]).write(EPISODES)
    assert len(TrajectoryStore(tmp_path / "deep/store")) == 4


def test_a_file_system_of_ones_own(tmp_path: Path) -> None:
    filesystem = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    TrajectoryStore("inner", filesystem).write(EPISODES)
    assert len(TrajectoryStore("inner", filesystem).read()) == 4
    assert (tmp_path / "inner" / MANIFEST).exists()


def test_a_file_system_in_memory() -> None:
    filesystem, _ = pafs.FileSystem.from_uri("mock:///")
    TrajectoryStore("bucket/store", filesystem).write(EPISODES)
    assert_same(TrajectoryStore("bucket/store", filesystem).read([2])[0], EPISODES[2])


def test_an_impossible_uri_is_an_error_of_ours() -> None:
    with pytest.raises(StoreError, match="nonsense://"):
        TrajectoryStore("nonsense://somewhere")


def test_a_finished_store_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with pytest.raises(StoreError, match="already holds"):
        store.write(EPISODES[:1])
    store.write(EPISODES[:1], replace=True)
    assert len(store) == 1
    assert len(TrajectoryStore(tmp_path).read()) == 1
    assert len(list(tmp_path.glob("part-*"))) == 1


def test_a_failed_replacement_leaves_the_old_store(tmp_path: Path) -> None:
    store = filled(tmp_path)

    def breaking():
        yield EPISODES[0]
        raise RuntimeError("the environment fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        store.write(breaking(), replace=True)
    assert len(TrajectoryStore(tmp_path).read()) == 4


def test_an_unfinished_store_is_not_a_short_one(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path)
    store.write_part(EPISODES)
    assert not store.exists()
    with pytest.raises(StoreError, match=r"manifest\.json is missing.*collect it again"):
        store.read()
    store.write(EPISODES[:2])
    assert len(TrajectoryStore(tmp_path)) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    filled(tmp_path)
    victim = sorted(tmp_path.glob("part-*"))[0]
    victim.unlink()
    with pytest.raises(StoreError, match=victim.name):
        len(TrajectoryStore(tmp_path))


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_named(tmp_path: Path, kept: float) -> None:
    filled(tmp_path)
    victim = sorted(tmp_path.glob("part-*"))[1]
    data = victim.read_bytes()
    victim.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(StoreError, match=victim.name):
        len(TrajectoryStore(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00\x01", '{"format": 99, "episodes": 0, "parts": []}'])
def test_a_broken_manifest_is_named(tmp_path: Path, text: str) -> None:
    filled(tmp_path)
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(StoreError, match=MANIFEST):
        len(TrajectoryStore(tmp_path))


def test_a_manifest_that_lost_a_part_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    manifest["parts"].pop()
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="contradicts itself"):
        len(TrajectoryStore(tmp_path))


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    place = tmp_path_factory.mktemp("store")
    TrajectoryStore(place).write(EPISODES)
    path = next(place.glob("part-*"))
    return path, path.read_bytes()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_an_altered_byte_is_found_or_harmless(intact: tuple[Path, bytes], where: float, flip: int) -> None:
    path, data = intact
    altered = bytearray(data)
    altered[int(where * len(data))] ^= flip
    path.write_bytes(altered)
    try:
        found = TrajectoryStore(path.parent).read()
    except StoreError as error:
        assert path.name in str(error)  # noqa: PT017  either outcome is right
    else:
        for written, read in zip(EPISODES, found, strict=True):
            assert_same(written, read)
    finally:
        path.write_bytes(data)


def test_nothing_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no trajectories"):
        TrajectoryStore(tmp_path).write([])


def test_a_store_keeps_to_one_layout(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path)
    with pytest.raises(StoreError, match="episodes of one task"):
        store.write([episode(0), episode(1, size=(8, 8))])
    with pytest.raises(StoreError, match="episodes of one task"):
        store.finish([store.write_part([episode(0)]), store.write_part([episode(1, size=(8, 8))])])
    assert not store.exists()


def test_a_trajectory_that_lacks_its_last_frame_is_refused(tmp_path: Path) -> None:
    whole = episode(0)
    short = Trajectory(**{**vars(whole), "frames": whole.frames[:-1]})
    with pytest.raises(StoreError, match=r"T \+ 1 frames"):
        TrajectoryStore(tmp_path).write([short])


def test_frames_read_back_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        filled(tmp_path).read([0])[0].frames[0] = 0
