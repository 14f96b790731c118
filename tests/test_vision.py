"""Pixel operations on pictures drawn by hand; and what they remember."""

import numpy as np
import pytest

from carl import vision

RED, GREEN, GREY, WHITE = (255, 0, 0), (0, 255, 0), (100, 100, 100), (255, 255, 255)


def picture(*boxes, size: int = 20) -> np.ndarray:
    """Black, with boxes (left, top, width, height, colour)."""
    frame = np.zeros((size, size, 3), np.uint8)
    for x, y, w, h, colour in boxes:
        frame[y : y + h, x : x + w] = colour
    return frame


def mask(*boxes, size: int = 20) -> np.ndarray:
    return picture(*((*box, WHITE) for box in boxes), size=size).any(axis=2)


def test_brightness_and_bands():
    frame = picture((2, 2, 3, 3, RED), (10, 10, 4, 4, GREY))
    assert vision.brightness(frame)[3, 3] == 255
    assert vision.band(frame, 50, 150).sum() == 16
    assert vision.band(frame, 50).sum() == 25


def test_colours_by_name():
    frame = picture((0, 0, 2, 2, RED), (4, 4, 3, 3, GREEN), (10, 10, 4, 4, GREY), (15, 15, 5, 5, WHITE))
    found = {name: int(vision.colour(frame, name).sum()) for name in ("red", "green", "blue", "grey", "white")}
    assert found == {"red": 4, "green": 9, "blue": 0, "grey": 16, "white": 25}


def test_the_border_region_is_what_frames_the_picture():
    frame = picture((0, 0, 20, 20, GREY), (4, 4, 12, 12, (0, 0, 0)), (8, 8, 2, 2, GREY))
    assert np.array_equal(vision.border_region(frame), ~mask((4, 4, 12, 12)))


def test_changes_and_shares():
    before, after = picture((2, 2, 4, 4, RED)), picture((2, 2, 4, 2, RED))
    assert vision.changed(after, before).sum() == 8
    assert vision.share(vision.changed(after, before), mask((2, 2, 4, 4))) == 0.5
    assert vision.share(mask((0, 0, 1, 1)), np.zeros((20, 20), bool)) == 0.0


def test_shapes():
    key, door, line = (2, 2, 2, 6), (10, 2, 6, 6), (0, 15, 20, 1)
    things = mask(key, door, line)
    assert np.array_equal(vision.solid(things, 4), mask(door))
    assert np.array_equal(vision.largest(things), mask(door))
    assert np.array_equal(vision.shaped(things, taller=2), mask(key))
    assert np.array_equal(vision.shaped(things, wider=2), mask(line))
    assert vision.outline(mask(door)).sum() == 20
    assert np.array_equal(vision.grown(mask((5, 5, 1, 1)), 2), mask((3, 3, 5, 5)))
    assert vision.filled(mask((2, 2, 3, 6), (6, 2, 3, 6)), 2)[4, 5]
    assert vision.blobs(things, min_area=13) == [vision.Blob(10, 2, 6, 6, 36), vision.Blob(0, 15, 20, 1, 20)]


def test_places():
    assert vision.centre(mask((4, 6, 3, 3))) == (5.0, 7.0)
    assert vision.distance(mask((0, 0, 1, 1)), mask((3, 4, 1, 1))) == 5.0
    assert vision.distance(mask(), mask((3, 4, 1, 1))) == float("inf")


def test_nothing_found_is_nothing():
    nothing = mask()
    assert not vision.largest(nothing).any()
    assert not vision.shaped(nothing).any()
    assert vision.blobs(nothing) == []
    assert vision.centre(nothing) == (-1.0, -1.0)


def test_remembered_answers_are_the_caller_s_to_change():
    things = mask((2, 2, 4, 4))
    first = vision.largest(things)
    first[:] = False
    assert np.array_equal(vision.largest(things), things)
    vision.blobs(things).clear()
    assert len(vision.blobs(things)) == 1


def test_what_is_asked_is_told_apart():
    tall, wide = np.ones((2, 8), bool), np.ones((8, 2), bool)  # the same bytes
    assert vision.shaped(tall, taller=2).sum() == 0
    assert vision.shaped(wide, taller=2).sum() == 16
    frame = picture((2, 2, 4, 4, GREY))
    assert (vision.band(frame, 50).sum(), vision.band(frame, 150).sum()) == (16, 0)
    assert (vision.band(frame, high=50, low=0).sum(), vision.band(frame, low=0, high=150).sum()) == (384, 400)
    changed = frame.copy()
    assert vision.largest(vision.band(changed, 50)).sum() == 16
    changed[2, 2] = 0
    assert vision.largest(vision.band(changed, 50)).sum() == 15


def test_a_mask_may_be_a_list():
    assert vision.blobs([[True, False]]) == [vision.Blob(0, 0, 1, 1, 1)]


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(vision, "_MEMORY_BYTES", 5_000)
    memory, asked = vision._Memory(), []

    def ask(key):
        return memory.answer(key, lambda: asked.append(key) or np.zeros(1_000, np.uint8))

    for key in (1, 2, 3, 1, 4, 1, 2):  # three fit; 2 was not asked for the longest when 4 came
        ask(key)
    assert asked == [1, 2, 3, 4, 2]
    with pytest.raises(ZeroDivisionError):
        memory.answer(5, lambda: 1 / 0)
    assert len(memory.answer(6, lambda: np.zeros(9_000, np.uint8))) == 9_000


def naive_background(frame, least):
    """Counts colours one by one."""
    colours = [tuple(int(level) // 16 for level in pixel) for row in frame for pixel in row]
    shares = {colour: colours.count(colour) / len(colours) for colour in set(colours)}
    return np.array([shares[colour] >= least for colour in colours]).reshape(frame.shape[:2])


def naive_cells(picture, rows, columns):
    height, width = picture.shape[:2]
    parts = [[(i * height // rows, (i + 1) * height // rows) for i in range(rows)]]
    parts.append([(j * width // columns, (j + 1) * width // columns) for j in range(columns)])
    return np.array([[picture[a:b, c:d].mean(axis=(0, 1)) for c, d in parts[1]] for a, b in parts[0]])


@pytest.mark.parametrize("seed", range(3))
def test_what_models_write_again_and_again_is_what_slow_versions_find(seed):
    rng = np.random.default_rng(seed)
    frame, initial = (rng.choice([0, 40, 90, 200], (13, 17, 3), p=[0.7, 0.1, 0.1, 0.1]).astype(np.uint8) for _ in "ab")
    rows = [
        [max(abs(int(a) - b) for a, b in zip(pixel, (80, 30, 50), strict=True)) <= 45 for pixel in r] for r in frame
    ]
    assert np.array_equal(vision.near(frame, (80, 30, 50), 45), np.array(rows))
    assert np.array_equal(vision.background(frame, 0.05), naive_background(frame, 0.05))
    behind = naive_background(frame, 0.05)
    assert np.array_equal(vision.moved(frame, initial), vision.changed(frame, initial) & ~behind)
    spots = vision.blobs(~behind, min_area=4)
    assert vision.things(frame).sum() == sum(spot.area for spot in spots)
    assert np.allclose(vision.cells(frame, 4, 5), naive_cells(frame, 4, 5))
    assert np.allclose(vision.cells(behind, 3, 17), naive_cells(behind, 3, 17))


def test_things_are_what_is_not_background():
    frame = picture((0, 0, 20, 3, GREY), (5, 8, 3, 4, RED), (12, 12, 2, 2, GREEN), (17, 17, 1, 1, WHITE))
    assert np.array_equal(vision.things(frame), mask((5, 8, 3, 4), (12, 12, 2, 2)))
    assert np.array_equal(vision.saturated(frame), mask((5, 8, 3, 4), (12, 12, 2, 2)))
    assert np.array_equal(vision.near(frame, (250, 5, 0)), mask((5, 8, 3, 4)))
    now = picture((0, 0, 20, 3, GREY), (9, 8, 3, 4, RED), (12, 12, 2, 2, GREEN), (17, 17, 1, 1, WHITE))
    assert np.array_equal(vision.moved(now, frame), mask((9, 8, 3, 4)))
    assert np.array_equal(vision.moved(frame, now), mask((5, 8, 3, 4)))


@pytest.mark.parametrize("degrees", [-60, -45, -20, 0, 30, 45, 75, 90])
def test_the_tilt_of_a_bar(degrees):
    ys, xs = np.mgrid[-30:31, -30:31]
    angle = np.radians(degrees)
    along, across = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
    bar = (abs(along) < 24.3) & (abs(across) < 4.3)
    assert vision.tilt(bar) == pytest.approx(degrees, abs=1.5)


def test_what_has_no_axis_has_no_tilt():
    assert [vision.tilt(each) for each in (mask(), mask((3, 3, 1, 1)), mask((3, 3, 5, 5)))] == [0.0, 0.0, 0.0]
