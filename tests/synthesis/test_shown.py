"""What is chosen to be shown of episodes, the table of their colours, and what was found in words."""

import numpy as np
import pytest

from carl.synthesis.colours import NEAR, ROWS, colour_table
from carl.synthesis.failures import CASES, Case, Findings
from carl.synthesis.shown import MIDDLES, MISSES, Examples
from carl.verification import Check, FrameRef, VerificationReport
from carl.verification.rule import Evidence
from tests.fakes.episodes import episode

YELLOW, BLUE, GREEN, RED = (255, 255, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0)


def frame(*things: tuple[int, int, tuple[int, int, int]]) -> np.ndarray:
    """Black, 16 x 16, with squares of 3 pixels at (x, y)."""
    drawn = np.zeros((16, 16, 3), np.uint8)
    for x, y, colour in things:
        drawn[y : y + 3, x : x + 3] = colour
    return drawn


def walk(seed: int, key: tuple[int, int, int], role: str = "expert", steps: int = 8, end: int = 8, **kwargs):
    """A red agent that walks to the right, past a key that lies still."""
    places = np.linspace(0, end, steps + 1).astype(int)
    return episode(*(frame((x, 10, RED), (2, 2, key)) for x in places), seed=seed, role=role, **kwargs)


def test_the_episodes_that_differ_most_are_shown() -> None:
    experts = [walk(0, YELLOW), walk(1, YELLOW, end=7), walk(2, YELLOW, end=9), walk(3, BLUE)]
    shown = Examples.chosen({Evidence.EXPERTS: experts}, 2)
    assert 3 in [each.seed for each in shown.experts], "its key has another colour"
    assert len(Examples.chosen({Evidence.EXPERTS: experts}, 9).experts) == 4
    same = Examples.chosen({Evidence.EXPERTS: [walk(seed, BLUE) for seed in range(3)]}, 2)
    assert [each.seed for each in same.experts] == [0, 1]


def test_frames_from_the_middle_are_those_that_differ() -> None:
    still, swung = frame((4, 4, RED)), frame((4, 4, GREEN), (9, 9, BLUE))
    frames = [still] * 5 + [swung] + [still] * 5 + [frame((0, 0, RED))]
    pictures = Examples([episode(*frames)]).pictures(16)
    captions = [each.caption for each in pictures]
    assert captions[:3] == [
        "expert episode 0, initial frame",
        "expert episode 0, goal frame",
        "expert episode 0, frame 10, the one before its goal frame: the last sub-task must not be 1 yet",
    ]
    assert "expert episode 0, frame 5 of 11" in captions[3:]
    assert len(captions) == 3 + MIDDLES
    alike = Examples([episode(*[still] * 30)]).pictures(16)
    assert [each.caption for each in alike][3:] == [
        "expert episode 0, frame 7 of 29",
        "expert episode 0, frame 14 of 29",
    ]
    assert len(Examples([episode(still, swung)]).pictures(16)) == 2
    assert len(Examples([episode(still, still, swung)]).pictures(16)) == 3


def test_near_misses_are_failed_episodes_that_end_much_like_success() -> None:
    experts = [walk(seed, YELLOW) for seed in range(2)]
    randoms = [
        walk(10, YELLOW, "random", end=1, success=False, terminated=False),
        walk(11, YELLOW, "random", end=7, success=False, terminated=False),
        walk(12, YELLOW, "random", end=8, success=True),
        walk(13, YELLOW, "random", end=5, success=False),
        walk(14, YELLOW, "random", end=6, success=False, terminated=False),
    ]
    shown = Examples.chosen({Evidence.EXPERTS: experts, Evidence.RANDOMS: randoms}, 1)
    assert [each.seed for each in shown.misses] == [11, 13], "the nearest of each way of ending"
    last = [each for each in shown.pictures(16) if each.caption.startswith("near miss, random episode 11, its last")]
    assert "the last sub-task must not be 1" in last[0].caption
    assert np.array_equal(last[0].frame, randoms[1].frames[-1])
    assert len(shown.misses) == MISSES


def refs(*steps: int, seed: int = 5, source: str = "random") -> tuple[FrameRef, ...]:
    return tuple(
        FrameRef(source=source, seed=seed, step=step, subtask=0, expected="below 1", got="1") for step in steps
    )


def report(*checks: Check) -> VerificationReport:
    return VerificationReport(program_id="x", accepted=False, checks=checks, episodes={}, frames=0, seconds=0.0)


def test_findings_are_in_the_words_of_reward_designers_shortest_case_first() -> None:
    early = Check(name="already_done", passed=False, subtask=0, message="done at once", frames=refs(7, 3, 9))
    misread = Check(name="experts_complete", passed=False, subtask=1, message="never done", frames=refs(4, source="x"))
    fine = Check(name="static_policy", passed=True, message="fine")
    unknown = Check(name="some_rule", passed=False, message="no")
    unearned = Check(name="for_nothing_random", passed=False, message="paid for nothing: random play earns 9 %")
    slow = Check(name="cost", passed=False, message="too slow: 34 ms a frame")
    found = Findings.of(report(fine, early, misread, unknown, unearned, slow))
    assert found.text.splitlines() == [
        "Rewarded too early: done at once",
        *(f"- random episode 5, frame {step}: sub-task 1: expected below 1; got 1" for step in (3, 7, 9)),
        "Misread: never done",
        "- x episode 5, frame 4: sub-task 1: expected below 1; got 1",
        "Some rule: no",
        "Paid for nothing: random play earns 9 %",
        "Too slow: 34 ms a frame",
    ]
    assert [(each.frame.step, each.words) for each in found.cases] == [
        (3, "rewarded too early"),
        (4, "misread"),
        (7, "rewarded too early"),
    ]
    assert len(found.cases) == CASES


def test_failing_frames_are_shown_with_their_initial_frames() -> None:
    experts, randoms, held_out = [walk(0, YELLOW)], [walk(5, BLUE, "random")], [walk(6, GREEN, "random")]
    examples = Examples.chosen({Evidence.EXPERTS: experts, Evidence.RANDOMS: randoms}, 1)
    cases = [Case(each, "misread") for each in (*refs(0, 4), *refs(99), *refs(2, seed=6), *refs(1, seed=7))]
    before = [each.caption for each in examples.pictures(16, cases)]
    examples.add({Evidence.EXPERTS: [], Evidence.RANDOMS: held_out})
    pictures = examples.pictures(16, cases)
    assert [each.caption for each in pictures][-5:] == [
        "where it failed, random episode 5, frame 0: misread (sub-task 1): expected below 1; got 1",
        "where it failed, random episode 5, its initial frame",
        "where it failed, random episode 5, frame 4: misread (sub-task 1): expected below 1; got 1",
        "where it failed, random episode 6, its initial frame",
        "where it failed, random episode 6, frame 2: misread (sub-task 1): expected below 1; got 1",
    ]
    assert np.array_equal(pictures[-1].frame, held_out[0].frames[2])
    assert not any("episode 6" in caption for caption in before)


@pytest.mark.parametrize(("most", "count"), [(2, 2), (3, 3), (4, 4), (5, 5), (30, 12)])
def test_what_matters_most_is_kept_where_few_pictures_are_allowed(most: int, count: int) -> None:
    experts = [walk(0, YELLOW)]
    randoms = [walk(5, BLUE, "random", success=False), walk(6, BLUE, "random", success=False)]
    examples = Examples.chosen({Evidence.EXPERTS: experts, Evidence.RANDOMS: randoms}, 1)
    pictures = examples.pictures(most, [Case(refs(0)[0], "misread"), Case(refs(3)[0], "misread")])
    assert len(pictures) == count
    assert [each.caption for each in pictures][:2] == [
        "expert episode 0, initial frame",
        "expert episode 0, goal frame",
    ]
    assert any("where it failed" in each.caption for each in pictures) is (most > 2)


def test_the_table_of_colours_has_shares_and_boxes() -> None:
    drawn = frame((1, 2, YELLOW), (8, 9, YELLOW), (12, 0, YELLOW), (4, 12, BLUE))
    assert colour_table([drawn, np.zeros((16, 16, 3), np.uint8)]).splitlines() == [
        "(0, 0, 0) black, 93.0%; picture 1: 0,0,16,16; picture 2: 0,0,16,16",
        "(255, 255, 0) yellow, 5.3%; picture 1: 12,0,3,3 1,2,3,3 and 1 more",
        "(0, 0, 255) blue, 1.8%; picture 1: 4,12,3,3",
    ]


def test_the_shades_at_the_edge_of_a_thing_are_counted_with_its_colour() -> None:
    drawn = frame((4, 4, YELLOW))
    drawn[4, 4], drawn[7, 7] = (250, 243, 12), (250, 242, 0)
    assert [line.partition(";")[0] for line in colour_table([drawn]).splitlines()] == [
        "(0, 0, 0) black, 96.1%",
        "(255, 255, 0) yellow, 3.5%",
        "(250, 242, 0) yellow, 0.4%",
    ]


def test_the_table_of_many_colours_ends_somewhere() -> None:
    rows, columns = np.indices((20, 20)) * (NEAR + 1)
    drawn = np.stack([rows, columns, rows * 0], axis=2).astype(np.uint8)
    lines = colour_table([drawn]).splitlines()
    assert len(lines) == ROWS + 1
    assert lines[-1] == f"and {400 - ROWS} further colours, {(400 - ROWS) / 400:.1%} together"
    further = [drawn + np.uint8([0, 0, 13 * blue]) for blue in range(8)]
    lines = colour_table(further).splitlines()
    assert lines[-1].startswith(f"and {8 * 400 - ROWS} further colours"), "also those beyond LOOKED_AT"
