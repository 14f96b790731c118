"""Frames in chunks are the frames that went in, and at no time all in memory."""

import numpy as np
import pyarrow as pa
import pytest

from carl.episodes.frames import LazyFrames, Reel

FRAMES = np.random.default_rng(0).integers(256, size=(11, 4, 5, 3), dtype=np.uint8)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of four of those frames."""
    monkeypatch.setattr("carl.episodes.frames.CHUNK_BYTES", 4 * FRAMES[0].nbytes)


def lazy() -> tuple[LazyFrames, list[int]]:
    """FRAMES in chunks of four, and the chunks that were loaded."""
    loaded: list[int] = []

    def load(number: int) -> np.ndarray:
        loaded.append(number)
        return FRAMES[4 * number : 4 * number + 4]

    return LazyFrames(len(FRAMES), FRAMES.shape[1:], 4, load), loaded


@pytest.mark.parametrize(
    "key", [0, 5, -1, np.int64(10), slice(2, 9), slice(None, None, -3), slice(4, 4), (slice(None), 0, 0), [1, 9, 3]]
)
def test_it_is_indexed_as_an_array(key: object) -> None:
    assert np.array_equal(lazy()[0][key], FRAMES[key])


def test_it_looks_like_an_array() -> None:
    frames, _ = lazy()
    assert (len(frames), frames.shape, frames.dtype, frames.nbytes) == (11, FRAMES.shape, np.uint8, FRAMES.nbytes)
    assert np.array_equal(frames, FRAMES)
    assert [frame[0, 0, 0] for frame in frames] == FRAMES[:, 0, 0, 0].tolist()
    for beyond in (11, -12):
        with pytest.raises(IndexError):
            frames[beyond]


def test_a_chunk_is_loaded_when_it_is_looked_at_and_stays_until_another_is() -> None:
    frames, loaded = lazy()
    assert loaded == []
    for step in (0, 3, 1, 4, 7, 10, 8):
        frames[step]
    assert loaded == [0, 1, 2]
    frames[0]
    assert loaded == [0, 1, 2, 0]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("count", [1, 4, 5, 8, 11])
def test_a_reel_gives_back_what_it_took(count: int) -> None:
    reel = Reel()
    for frame in FRAMES[:count]:
        reel.add(frame)
    frames = reel.frames()
    assert isinstance(frames, LazyFrames) == (count > 4)
    assert frames.shape == (count, *FRAMES.shape[1:])
    assert np.array_equal(frames, FRAMES[:count])


@pytest.mark.usefixtures("small_chunks")
def test_a_reel_takes_frames_that_lie_transposed_in_memory(small_chunks: None) -> None:
    reel = Reel()
    for frame in FRAMES:
        reel.add(np.ascontiguousarray(frame.transpose(1, 0, 2)).transpose(1, 0, 2))
    assert np.array_equal(reel.frames(), FRAMES)


def test_a_reel_keeps_copies_of_one_size() -> None:
    reel, canvas = Reel(), FRAMES[0].copy()
    for shade in range(6):
        canvas[:] = shade
        reel.add(canvas)
    with pytest.raises(ValueError, match=r"\[2, 5, 3\] where the first one was \[4, 5, 3\]"):
        reel.add(canvas[:2])
    assert np.asarray(reel.frames())[:, 0, 0, 0].tolist() == list(range(6))


def test_a_reel_takes_the_memory_of_compressed_frames() -> None:
    """Those of a uniform colour; a buffer that Arrow compressed to keeps more than they had."""
    reel, before = Reel(), pa.total_allocated_bytes()
    for _ in range(12):
        reel.add(np.zeros((512, 512, 3), np.uint8))
    assert pa.total_allocated_bytes() - before < 1 << 20
    assert len(reel.frames()) == 12
