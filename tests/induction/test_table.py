"""What a table holds is exactly what the code of its features computes."""

import itertools

import numpy as np
import pytest

from carl.episodes.trajectory import Trajectory
from carl.induction.emission import source
from carl.induction.features import AT_LEAST, AT_MOST
from carl.induction.layout import Look
from carl.induction.milestones import Condition, Milestone, between
from carl.induction.pixels import telling
from carl.induction.table import Table, table
from carl.sandbox.policy import violations

PALETTE = np.array(
    [(0, 0, 0), (250, 20, 20), (20, 250, 20), (30, 30, 250), (240, 240, 30), (120, 120, 120), (60, 10, 10)], np.uint8
)


def noise(seed: int) -> Trajectory:
    """Boxes of colours, some of which vanish or move."""
    rng = np.random.default_rng(seed)
    frames = np.full((5, 30, 24, 3), 90, np.uint8)
    for _ in range(7):
        colour, (x, y), (w, h) = PALETTE[rng.integers(len(PALETTE))], rng.integers(1, 16, 2), rng.integers(2, 8, 2)
        for frame in frames[: rng.integers(1, 6)]:
            frame[y : y + h, x : x + w] = colour
            x += rng.integers(0, 2)
    frames[0, 2:6, 2:6] = PALETTE[1]
    return Trajectory(frames, np.zeros(4), np.zeros(4), True, False, True, seed, "expert")


def mismatches(measured: Table, episodes: list[Trajectory], index: int, threshold: float) -> list[str]:
    """Where the code of a feature says otherwise than the table, for one threshold in both senses."""
    found = []
    for sense in (AT_LEAST, AT_MOST):
        condition = Condition(index, sense, threshold, 0.0)
        code = source([(measured.features[index], condition)])
        assert not violations(code), code
        names: dict = {}
        exec(code, names)
        holds = Milestone((condition,)).holds(measured)
        for at, frame in enumerate(itertools.chain(*(episode.frames for episode in episodes))):
            initial = episodes[measured.episode[at]].frames[0]
            if names["progress"](frame, initial) != holds[at]:
                found.append(f"{code}\nframe {at}: {measured.values[index, at]} {threshold}")
    return found


@pytest.mark.parametrize("kind", ["noise", "room"])
def test_the_code_of_every_kind_of_feature_computes_what_the_table_holds(kind, room):
    episodes = [noise(seed) for seed in range(6)] if kind == "noise" else room(0)[0][:3]
    measured = table(episodes, [], look=Look.POINTING)
    several: dict[tuple, int] = {}
    for index, feature in enumerate(measured.features):
        name = type(feature).__name__, feature.seen.words, len(feature.regions)
        values = np.unique(measured.values[index][~np.isnan(measured.values[index])])
        if several.setdefault(name, 0) < 2:
            several[name] += 1
            middle = len(values) // 2
            threshold = between(float(values[middle - 1]), float(values[middle]))
            assert not mismatches(measured, episodes, index, threshold)
    assert {kind for kind, *_ in several} == {"Share", "Area", "Place", "Distance", "Pointing"}


def test_values_do_not_depend_on_how_many_frames_are_measured_at_once(monkeypatch):
    episodes = [noise(seed) for seed in range(3)]
    whole = table(episodes, [])
    monkeypatch.setattr("carl.induction.table.PIXELS_AT_ONCE", 1)
    assert np.array_equal(table(episodes, []).values, whole.values, equal_nan=True)


@pytest.mark.parametrize(("frames", "experts", "others"), [(130, 12, 14), (110, 11, 11), (1, 10, 10)])
def test_as_many_episodes_are_measured_as_there_is_room_for(frames, experts, others):
    episode = noise(0)
    measured = table([episode] * 12, [episode] * 20, frames)
    assert (measured.experts, len(measured.lengths)) == (experts, experts + others)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (30.01, 30.02), (-3.0, 1.0), (0.0, 1e-5), (11.0, 57.0)])
def test_a_threshold_lies_in_the_middle_half_and_has_few_digits(low, high):
    threshold = between(low, high)
    assert low + (high - low) / 4 <= threshold <= high - (high - low) / 4
    assert len(repr(threshold)) <= 8


def test_exact_colours_that_go_on_the_way_and_at_the_end():
    frames = np.full((3, 6, 8, 8, 3), 90, np.uint8)
    for number, episode in enumerate(frames):
        episode[: 2 + number, 1, :3] = (184, 104, 104)
        episode[:, 2, : 2 + number] = (10, 200, 10)
        episode[-1, 3, :2] = (120, 104, 152)
    assert telling([each[0] for each in frames], [*frames]) == [(184, 104, 104), (120, 104, 152)]
