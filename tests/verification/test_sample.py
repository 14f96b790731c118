"""The quick look at functions agrees with the replay that decides, and tells how much speaks against a program."""

import pytest

from carl.program import RewardProgram, SubTask
from carl.sandbox.box import Box
from carl.verification import Check, Evidence, FrameRef, VerificationReport
from carl.verification.replay import Replay
from carl.verification.sample import EPISODES, Sample
from tests.verification.episodes import KEY_GONE, REACH_GOAL, experts, kinds, randoms

AT_GOAL = REACH_GOAL.replace("np.clip(columns[0] / first, 0, 1)", "columns[0] >= first")
RAISES = "def progress(frame, initial):\n    return frame[99, 0, 0]\n"
ALWAYS = "def progress(frame, initial):\n    return 1.0\n"
NEVER = "def progress(frame, initial):\n    return 0.0\n"


def of(*codes: str, hold: int = 1) -> RewardProgram:
    return RewardProgram(subtasks=tuple(SubTask(name="a", code=code, hold=hold) for code in codes))


@pytest.fixture(scope="module")
def sample() -> Sample:
    return Sample(kinds(experts(20), randoms(20)))


def test_of_each_kind_there_are_a_few(sample: Sample) -> None:
    assert [sample.kinds.count(kind) for kind in (Evidence.EXPERTS, Evidence.RANDOMS)] == [EPISODES, EPISODES]


@pytest.mark.parametrize("hold", [1, 2])
def test_a_program_goes_through_it_as_through_the_replay(sample: Sample, hold: int) -> None:
    program = of(KEY_GONE, REACH_GOAL, hold=hold)
    played = sample.play(program)
    assert played is not None
    replay = Replay(program, sample.episodes)
    with Box(program) as box:
        replay.run([box])
    assert played.completed.tolist() == replay.completed.tolist()
    for row, episode in enumerate(replay.episodes()):
        assert played.active_at[row].tolist() == [track.active_at for track in episode.tracks]
        assert played.done_at[row].tolist() == episode.done_at


def test_less_speaks_against_what_gets_further(sample: Sample) -> None:
    programs = [of(NEVER, NEVER), of(KEY_GONE, NEVER), of(KEY_GONE, REACH_GOAL), of(KEY_GONE, AT_GOAL)]
    against = [sample.against(program) for program in programs]
    assert against == sorted(against, reverse=True)
    assert len(set(against)) == 4, "the last but one pays random play for coming nearer"
    assert against[-1] == 0
    assert sample.against(of(KEY_GONE)) > 0, "done before the end"
    assert sample.against(of(KEY_GONE), prefix=True) == 0
    assert sample.against(of(ALWAYS)) == 2, "everything is wrong in both kinds"
    assert sample.against(of(RAISES)) == float("inf")


def test_episodes_that_decided_are_taken_in() -> None:
    sample = Sample(kinds(experts(20), randoms(20)))
    sample.values(NEVER)
    frame = FrameRef(source="expert", seed=19, step=3, subtask=0, expected="1", got="0")
    check = Check(name="rule", passed=False, message="no", frames=(frame, frame.model_copy(update={"seed": 7})))
    report = VerificationReport(program_id="a", accepted=False, checks=(check,), episodes={}, frames=0, seconds=0.0)
    for _ in range(2):
        sample.learn(report)
        assert [episode.seed for episode in sample.episodes][2 * EPISODES :] == [19], "7 is there"
    said = sample.values(NEVER)
    assert said is not None
    assert len(said) == 2 * EPISODES + 1


def test_what_is_taken_in_comes_in_the_order_of_the_kinds() -> None:
    order = list(Evidence)
    for several in (order, order[::-1]):  # a set of them would be in the order of this process's hashes
        sample = Sample({kind: [] for kind in several}, among=[dict.fromkeys(several, experts(1))])
        frames = tuple(FrameRef(source=kind, seed=0, step=1, subtask=0, expected="", got="") for kind in order)
        check = Check(name="rule", passed=False, message="no", frames=frames)
        sample.learn(
            VerificationReport(program_id="a", accepted=False, checks=(check,), episodes={}, frames=0, seconds=0.0)
        )
        assert sample.kinds == several
