"""Charts, strips, words and pictures, each alone."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carl.runs.files import Files
from carl.runs.reader import Run
from carl.runs.report.charts import Series, line_chart, ticks
from carl.runs.report.gate import bounded, in_words, with_bound
from carl.runs.report.pictures import MAX_FRAMES, MAX_SIDE, TONES, animation, still, thinned
from carl.runs.report.sections import asked, searched, vlm
from carl.runs.report.strips import MAX_CELLS, telling
from carl.runs.report.words import Outcome, Rate, count, cut, figure, outcome, seconds, verdict


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 65_536), (-3.2, 0.4), (0, 0), (5, 5), (0, 1e-9)])
def test_ticks_enclose_the_data(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 8
    assert np.all(np.diff(found) > 0)


def test_chart_draws_finite_points_and_escapes_names() -> None:
    series = Series("arm-code", "<b>", [(0, 0.1), (5, float("nan")), (10, 0.9)], [(0, 0.2), (0, 0), (0.8, 1)])
    svg = line_chart("label", "steps", [series], (0, 1), percent=True)
    assert svg.count("<circle") == 2
    assert "<b>" not in svg
    assert "nan" not in svg
    assert line_chart("label", "steps", [Series("arm-code", "a", [])]) == ""


def test_strip_keeps_the_telling_frames() -> None:
    progress = np.zeros((201, 2))
    progress[37:, 0], progress[151:, 1] = 1.0, 1.0
    steps = telling(201, progress, marked=[99])
    assert {0, 37, 99, 151, 200} <= set(steps)
    assert len(steps) == MAX_CELLS
    assert telling(1, None) == [0]
    assert telling(3, None) == [0, 1, 2]


def test_strip_of_ever_rising_progress_stays_short() -> None:
    rising = np.linspace(0, 0.9, 500)[:, None]
    assert len(telling(500, rising)) == MAX_CELLS


def test_animation_has_a_bar_for_each_subtask_and_is_thinned() -> None:
    frames = np.zeros((400, 64, 64, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(400) % 251  # identical frames would be merged
    progress = np.tile([[1.0, 0.0]], (400, 1))
    moving, last = animation(frames, progress, TONES)
    with Image.open(_file(moving)) as film:
        assert film.n_frames == MAX_FRAMES
    with Image.open(_file(last)) as image:
        assert image.size == (64, 64 + 9)
        assert image.getpixel((60, 67))[:3] == TONES[0]
        assert image.getpixel((60, 71))[:3] != TONES[1]


def test_large_frames_are_shrunk() -> None:
    with Image.open(_file(still(np.zeros((400, 600, 3), np.uint8)))) as image:
        assert image.size == (MAX_SIDE, MAX_SIDE * 2 // 3)


def test_thinned_keeps_both_ends() -> None:
    assert thinned(10, 4) == [0, 3, 6, 9]
    assert thinned(0, 4) == []


def test_overlapping_intervals_and_other_numbers_of_steps_are_admitted() -> None:
    code, sparse = Outcome("code", Rate(0.97, 200), 1000), Outcome("sparse", Rate(0.95, 200), 2000)
    said = verdict(code, [sparse], weighed=False)
    assert "overlap" in said
    assert "after 2\u202f000 steps. The numbers of steps differ." in said
    same = verdict(code, [Outcome("sparse", Rate(0.2, 200), 1010)], weighed=False)
    assert "At the same number of steps the sparse reward without progress in it reaches 20" in same
    assert "The intervals are apart" in same
    ahead = verdict(code, [Outcome("sparse", Rate(0.98, 200), 1000)], weighed=False)
    assert ahead.endswith(
        "which does better cannot be told, and the final success rate shows no gain from the code reward."
    )
    assert "does better here" in verdict(Outcome("code", Rate(0.2, 200), 1000), [sparse], weighed=False)


def test_both_ways_of_acting_are_at_the_head() -> None:
    evaluation = {
        "headline": "sampled",
        "sampled": {"success_rate": 0.98, "episodes": 200},
        "greedy": {"success_rate": 0.645, "episodes": 200},
    }
    code = outcome("code", evaluation, 1000)
    assert code is not None
    said = verdict(code, [], weighed=False).replace("\u00a0", " ")
    assert "the policy, sampling its actions, solves 98 % of 200 unseen episodes" in said
    assert ", and acting greedily 64.5 % of 200 (57.7 to 70.8 %)." in said
    assert outcome("code", evaluation | {"headline": "greedy"}) == replace(
        code, rate=Rate(0.645, 200), env_steps=None, mode="greedy", others={"sampled": Rate(0.98, 200)}
    )


def test_the_gate_s_figures_are_words() -> None:
    figures = {"share": 0.015, "interval": [0.005, 0.043], "limit": 0.1, "episodes": 200, "solved": 2}
    said = in_words("random_completion", figures | {"done_per_subtask": [85.0, 3.0]}).replace("\u00a0", " ")
    assert said == (
        "every sub-task is done in 3 of 200 random episodes (1.5 %, 95 % interval 0.5 % to 4.3 %; "
        "at most 10 % may be); "
        "sub-task 1 done in 85 of 200 random episodes; sub-task 2 done in 3 of 200 random episodes; "
        "2 of 200 random episodes solve the task"
    )
    sound = {"experts": 59, "excluded": 0.0495, "contradicted": 0.05, "comparable": 60, "limit": 0.2}
    assert in_words("sound_evidence", sound).endswith(
        "; 3 of 60 solved ends occur unsolved elsewhere; at most 20\u00a0% may be"
    )
    assert "3 of 60 solved ends occur unsolved elsewhere (bound 12.5\u00a0%); at most" in with_bound(
        "sound_evidence", sound | {"bound": 0.125}
    )
    assert with_bound("lasting", {"bounds": [0.63, 0.05]}, "it stays") == "it stays, bound 5\u00a0% to 63\u00a0%"
    assert bounded("experts_complete", {"completed": 60, "episodes": 60}) == "4.9\u00a0%", "of an older carl"
    assert bounded("degrees_cut", {"concordance": [0.7]}) == ""
    assert in_words("experts_complete", {"completed": 55, "episodes": 60, "stuck": 5}) == (
        "55 of 60 expert episodes complete every sub-task; in 5 this one never gets done"
    )
    assert in_words("abstains", {"frames": 10, "abstains": 0}) == "0 of 10 frames got no answer"
    assert in_words("abstains", {"frames": "many"}) == "frames many"
    assert in_words("a_check_of_tomorrow", {"some_share": 0.5}) == "some share 0.5"
    assert in_words("a_check_of_tomorrow", {"some_share": 0.5}, "half of them do") == "half of them do"


def test_numbers_are_said_shortly() -> None:
    assert seconds(0.44) == "0.4 s"
    assert seconds(245) == "4 min 05 s"
    assert seconds(3720) == "1 h 02 min"
    assert count(None) == "\u2013"
    assert figure(0.123456) == "0.1235"
    assert cut("x" * 12, 10).endswith("2 more characters")


def _file(uri: str) -> io.BytesIO:
    return io.BytesIO(base64.b64decode(uri.partition(",")[2]))


def test_a_search_without_a_program_names_the_best_and_what_it_failed(tmp_path: Path) -> None:
    best = {"file": "candidates/03-abc.json", "words": "passed static_policy, and failed lasting: it goes off again"}
    content = {"candidates": 3, "proposers": ["induction"], "spent": {"seconds": 12.0}, "best": best, "usage": None}
    (tmp_path / "synthesis.json").write_text(json.dumps(content))
    run = Run(Files(tmp_path))
    assert searched(run) == [f"The best program of the search is candidates/03-abc.json: it {best['words']}."]
    assert not asked(run)
    assert vlm(run) == [("VLM requests", "none"), ("programs tried", "3"), ("search", "12 s")]
