"""Each property of the box is attacked; what a program does wrong is an abstain with a reason, never a lost frame."""

import gc
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import carl
from carl.errors import BoxError, ProgramError
from carl.program import MAX_SUBTASKS, RewardProgram, SubTask
from carl.sandbox import process, supervisor
from carl.sandbox.box import Box, Limits

BRIGHTNESS = "def progress(frame, initial):\n    return frame[0, 0, 0] / 255\n"


def unchecked(program: RewardProgram) -> None:
    """A policy that lets everything through: what the process stops has to be shown without the fence before it."""


def program(*sources: str) -> RewardProgram:
    return RewardProgram(
        subtasks=tuple(SubTask(name=f"s{i}", code=textwrap.dedent(source)) for i, source in enumerate(sources))
    )


def returning(expression: str) -> str:
    return f"def progress(frame, initial):\n    return {expression}\n"


def frames(*levels: int, size: int = 8) -> np.ndarray:
    return np.stack([np.full((size, size, 3), level, np.uint8) for level in levels])


def judge(box: Box, shown: np.ndarray, subtask: int = 0):
    return box.judge(shown, np.zeros_like(shown), np.full(len(shown), subtask, dtype=np.intp))


def once(source: str, shown: np.ndarray | None = None, limits: Limits | None = None, policy=unchecked):
    """Value and reason of one frame."""
    with Box(program(source), limits, policy) as box:
        judgement = judge(box, frames(255) if shown is None else shown)
    return judgement.values[0], judgement.reasons.get(0)


def each(sources: list[str]) -> list[tuple[float, str | None]]:
    """Value and reason of one frame for every source, as the sub-tasks of few programs: starting a box takes time."""
    results: list[tuple[float, str | None]] = []
    for start in range(0, len(sources), MAX_SUBTASKS):
        part = sources[start : start + MAX_SUBTASKS]
        shown = np.repeat(frames(255), len(part), axis=0)
        with Box(program(*part), policy=unchecked) as box:
            judgement = box.judge(shown, shown, np.arange(len(part)))
        results += [(value, judgement.reasons.get(row)) for row, value in enumerate(judgement.values.tolist())]
    return results


def descriptors() -> int:
    gc.collect()  # what other tests dropped is closed when it is collected
    return len(os.listdir("/proc/self/fd"))


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_values_of_many_frames_and_sub_tasks():
    both = program(BRIGHTNESS, returning("float((frame != initial).mean())"))
    shown = frames(0, 51, 255, 255)
    initials = frames(0, 0, 0, 255)
    with Box(both) as box:
        judgement = box.judge(shown, initials, np.array([0, 0, 1, 1]))
        assert judgement.values.tolist() == [0.0, 0.2, 1.0, 0.0]
        assert judgement.reasons == {}
        larger = frames(*range(0, 250), size=96)  # other size, several chunks
        assert np.allclose(judge(box, larger).values, np.arange(250) / 255)
        assert judge(box, frames(255, size=4)).values.tolist() == [1.0]
        assert len(box.judge(shown[:0], initials[:0], np.zeros(0, dtype=np.intp)).values) == 0
        assert box.restarts == 0


def test_rows_name_their_frames_and_the_beginnings_of_their_episodes():
    """The same whether the pictures lie in the box's memory, elsewhere, or in the memory of a child that is gone."""
    difference = returning("float(frame[0, 0, 0] - initial[0, 0, 0]) / 255")
    rows, episodes = np.array([3, 0, 3, 2]), np.array([0, 0, 1, 1])
    with Box(program(BRIGHTNESS, difference)) as box:
        shown, initials = box.room(4, 8, 8), box.room(2, 8, 8)
        assert not shown.any()
        shown[:], initials[:] = frames(0, 51, 102, 255), frames(0, 102)
        for pictures in (shown, frames(0, 51, 102, 255), shown[:], np.asfortranarray(shown), shown):
            values = box.judge(pictures, initials, np.array([0, 0, 1, 1]), rows, episodes).values
            assert np.allclose(values, [1.0, 0.0, 0.6, 0.0])
            if box.restarts == 0:
                os.kill(box._child.pid, 9)
                time.sleep(0.2)
        assert box.room(1, 8, 8).shape == (1, 8, 8, 3)
        assert box.room(100, 1000, 1000).nbytes == 300_000_000  # more than is shared


def test_more_rows_than_one_request_holds():
    shown = np.repeat(frames(0, 255), 400, axis=0)
    with Box(program(BRIGHTNESS)) as box:
        assert judge(box, shown).values.tolist() == [0.0] * 400 + [1.0] * 400


IN_RANGE = [
    ("True", 1.0),
    ("0", 0.0),
    ("np.float32(0.5)", 0.5),
    ("np.bool_(True)", 1.0),
    ("np.uint8(1)", 1.0),
    ("1 + 5e-7", 1.0),
    ("-5e-7", 0.0),
]


def test_numbers_in_range_are_accepted():
    answers = each([returning(expression) for expression, _ in IN_RANGE])
    assert answers == [(value, None) for _, value in IN_RANGE]


WRONG = [
    ("math.nan", "returned NaN"),
    ("np.float64('nan')", "returned NaN"),
    ("'abc'", "returned 'abc', not a number"),
    ("7", "returned 7, outside"),
    ("-0.25", "returned -0.25, outside"),
    ("math.inf", "returned inf, outside"),
    ("np.float32(2.5)", "returned 2.5, outside"),
    ("1 << 60 << 60000", "returned a value of type int, outside"),
    ("None", "returned None, not a number"),
    ("frame", r"returned an array of shape \[8, 8, 3\], not a number"),
    ("[1, 2]", r"returned a value of type list, \[1, 2\], not a number"),
    ("1 / 0", r"raised ZeroDivisionError: division by zero \(line 2\)"),
    ("frame[99]", r"raised IndexError: .*\(line 2\)"),
    ("undefined", "raised NameError"),
    ("cv2.cvtColor(frame, 9999)", "raised error: OpenCV"),
    ("progress(frame, initial)", "raised RecursionError"),
    ("np.zeros(1 << 40)", "raised .*MemoryError"),
    ("len([0] * (1 << 40))", "raised MemoryError"),
]


def test_everything_else_is_an_abstain_that_says_why():
    answers = each([returning(expression) for expression, _ in WRONG])
    for (expression, reason), (value, why) in zip(WRONG, answers, strict=True):
        assert math.isnan(value), expression
        assert re.match(reason, why or ""), (expression, why)


WRITES = [
    "frame[0, 0] = 0",
    "frame.sort()",
    "np.add(frame, 1, out=frame)",
    "cv2.circle(frame, (3, 3), 2, (1, 2, 3))",
    "frame.setflags(write=True)",
    "frame.base.setflags(write=True)",
]


def test_frames_cannot_be_written():
    for value, why in each([f"def progress(frame, initial):\n    {line}\n    return 0.0\n" for line in WRITES]):
        assert math.isnan(value)
        assert (why or "").startswith("raised")


ESCAPE = "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]"
"""The classic way to ``os`` in an interpreter that has imported it; here it gets out of the namespace on purpose."""


OUTSIDE = "/tmp/carl-escaped"
ESCAPES = [
    ("open('/etc/passwd')", "NameError"),
    ("eval('1')", "NameError"),
    ("__import__('os')", "ImportError"),
    (f"{ESCAPE}.__init__.__globals__['open']('/etc/passwd', 0)", "PermissionError"),
    (f"{ESCAPE}.__init__.__globals__['pipe']()", "PermissionError"),
    (f"{ESCAPE}.__init__.__globals__['environ']['PATH']", "KeyError"),
    ("np.load('/etc/passwd')", "PermissionError"),
    (f"np.zeros(3).tofile('{OUTSIDE}')", "SystemError"),
]


def test_what_gets_past_the_policy_finds_no_files_and_no_environment():
    answers = each([returning(expression) for expression, _ in ESCAPES])
    for (expression, stopped_by), (value, why) in zip(ESCAPES, answers, strict=True):
        assert math.isnan(value), expression
        assert (why or "").startswith(f"raised {stopped_by}"), (expression, why)
    assert not Path(OUTSIDE).exists()


def test_the_order_of_a_set_is_the_same_in_every_process():
    words = [f"w{i}" for i in range(40)]
    source = returning(f"[w for w in {{{', '.join(map(repr, words))}}}].index('w0') / 40")
    first = once(source)
    supervisor.dismiss()
    assert once(source) == first


def test_imports_that_the_policy_lists_work_and_no_others():
    top = "import numpy as np\nimport cv2\nimport math\nfrom carl import vision\n"
    assert once(top + returning("float(vision.band(frame, 200).mean())"))[0] == 1.0
    assert "may not import os" in once("import os\n" + BRIGHTNESS)[1]
    assert "may not import carl" in once("from carl import errors\n" + BRIGHTNESS)[1]


def test_policy_is_enforced_unless_told_otherwise():
    with pytest.raises(ProgramError, match="line 1"):
        Box(program("import os\n" + BRIGHTNESS))


FAULTY = """
    def progress(frame, initial):
        level = int(frame[0, 0, 0])
        if level == 1:
            while True:
                pass
        if level == 2:
            CRASH
        return level / 255
"""


def test_a_frame_past_its_deadline_abstains_and_the_others_are_judged():
    with Box(program(FAULTY.replace("CRASH", "pass")), Limits(deadline_s=0.3), unchecked) as box:
        judgement = judge(box, frames(0, 51, 1, 102, 255))
        assert np.array_equal(judgement.values, [0, 0.2, np.nan, 0.4, 1], equal_nan=True)
        assert judgement.reasons == {2: "ran past its deadline of 0.3 s"}
        assert box.restarts == 1
        assert judge(box, frames(255)).values.tolist() == [1.0]


COUNTS = "def progress(frame, initial):\n    for i in range(10**5):\n        pass\n    return 1.0\n"


def used_s(source: str, count: int) -> float:
    """Processor time that a child takes for so many frames, once it has compiled the source."""
    with Box(program(source), policy=unchecked) as box:
        judge(box, frames(0))
        before = box._child._used_s()
        judge(box, np.repeat(frames(0), count, axis=0))
        return box._child._used_s() - before


def test_the_deadline_is_one_frame_s_and_not_the_call_s():
    with Box(program(COUNTS), Limits(deadline_s=10 * used_s(COUNTS, 10)), unchecked) as box:
        assert judge(box, np.repeat(frames(0), 250, axis=0)).values.tolist() == [1.0] * 250


def test_a_child_that_gets_no_processor_time_is_waited_for():
    """As on a machine that is busy with other things."""
    with Box(program(BRIGHTNESS), Limits(deadline_s=0.05, wall_factor=2_000.0)) as box:
        os.kill(box.pid, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (box.pid, signal.SIGCONT)).start()
        assert judge(box, frames(255)).values.tolist() == [1.0]
        assert box.restarts == 0


def test_a_child_that_waits_is_ended_by_the_clock_on_the_wall():
    with Box(program(BRIGHTNESS), Limits(deadline_s=0.05, wall_factor=4.0)) as box:
        os.kill(box.pid, signal.SIGSTOP)
        judgement = judge(box, frames(255))
        assert judgement.reasons == {0: "gave no answer for 0.2 s, which it mostly waited"}
        assert box.restarts == 1


def test_code_at_the_top_that_hangs_is_ended_too():
    value, why = once("X = [0 for i in range(10**12)]\n" + BRIGHTNESS, limits=Limits(deadline_s=0.2))
    assert math.isnan(value)
    assert why.startswith("ran past its deadline")


def test_a_crash_abstains_and_the_others_are_judged():
    crash = FAULTY.replace("CRASH", f"{ESCAPE}.__init__.__globals__['abort']()")
    with Box(program(crash), policy=unchecked) as box:
        judgement = judge(box, frames(255, 2, 0))
        assert np.array_equal(judgement.values, [1, np.nan, 0], equal_nan=True)
        assert judgement.reasons == {1: "ended its process (signal 11)"}  # it may not send itself signal 6
        assert box.restarts == 1


def test_a_sub_task_that_keeps_ending_its_process_is_given_up_for_the_call():
    crash = FAULTY.replace("CRASH", f"{ESCAPE}.__init__.__globals__['_exit'](3)")
    with Box(program(crash, BRIGHTNESS), Limits(max_kills=2), unchecked) as box:
        shown = frames(2, 2, 2, 255, 255)
        judgement = box.judge(shown, shown, np.array([0, 0, 0, 0, 1]))
        assert np.array_equal(judgement.values, [np.nan] * 4 + [1], equal_nan=True)
        assert judgement.reasons[1] == "ended its process (exit code 3)"
        assert [judgement.reasons[row].split(":")[0] for row in (2, 3)] == ["not run", "not run"]
        assert box.restarts == 2
        assert judge(box, frames(255)).values.tolist() == [1.0]  # the next call tries again


def test_memory_is_bounded_by_the_limit():
    source = returning("float(np.ones(100 << 20, dtype=np.uint8).mean())")
    assert once(source, limits=Limits(memory_mb=512))[0] == 1.0
    assert "MemoryError" in once(source, limits=Limits(memory_mb=50))[1]


def test_a_child_that_dies_between_calls_costs_no_frame():
    with Box(program(BRIGHTNESS)) as box:
        os.kill(box._child.pid, 9)
        time.sleep(0.2)
        assert judge(box, frames(255)).values.tolist() == [1.0]
        assert box.restarts == 1


def test_lies_in_the_shared_memory_are_not_believed():
    with Box(program(BRIGHTNESS)) as box:
        run = box._child.run

        def lying(*args):
            answer = run(*args)
            return process.Answer(np.array([7.0, -1.0, np.inf]), answer.reasons, None)

        box._child.run = lying
        judgement = judge(box, frames(0, 0, 0))
        assert np.isnan(judgement.values).all()
        assert judgement.reasons[0] == "gave no valid number"


def test_nothing_is_left_behind():
    with Box(program(BRIGHTNESS)):  # whatever a first box opens for good
        pass
    before = descriptors(), children()
    box = Box(program(FAULTY.replace("CRASH", "pass")), Limits(deadline_s=0.1), unchecked)
    judge(box, frames(1, 0, 1))
    box.close()
    box.close()
    assert (descriptors(), children()) == before
    with pytest.raises(BoxError, match="closed"):
        judge(box, frames(0))


def test_an_interrupted_call_does_not_confuse_the_next(monkeypatch):
    with Box(program(BRIGHTNESS)) as box:
        monkeypatch.setattr(process.Child, "_receive", lambda self, timeout_s: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            judge(box, frames(0))
        monkeypatch.undo()
        assert judge(box, frames(255)).values.tolist() == [1.0]


OWNER = """
import numpy as np
from tests.sandbox.test_box import *
box = Box(program(SOURCE), Limits(deadline_s=1.0), unchecked)
print(box._child.pid, flush=True)
judge(box, frames(1))
import time
time.sleep(60)
"""


@pytest.mark.parametrize("source", ["BRIGHTNESS", "FAULTY"], ids=["idle", "busy"])
def test_the_child_ends_with_its_parent(source):
    root = str(Path(carl.__file__).parents[1])
    code = OWNER.replace("SOURCE", source)
    owner = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root, env=os.environ | {"PYTHONPATH": root}
    )
    child = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_other_systems_get_a_clear_error(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(BoxError, match="needs Linux"):
        Box(program(BRIGHTNESS))


def test_a_start_that_fails_says_why(monkeypatch):
    supervisor.dismiss()
    before = descriptors(), children()
    monkeypatch.setattr(supervisor, "_import_folders", lambda: ["/nowhere"])
    monkeypatch.setattr(process, "PAUSES_S", (0.0, 0.01))
    with pytest.raises(BoxError, match=r"did not start: [\s\S]*No module named"):
        Box(program(BRIGHTNESS))
    assert (descriptors(), children()) == before


@pytest.mark.parametrize(
    ("shown", "initials", "subtasks"),
    [
        (frames(0).astype(np.float32), frames(0), [0]),
        (frames(0), frames(0, size=9), [0]),
        (frames(0, 0), frames(0), [0, 0]),
        (frames(0), frames(0), [1]),
        (frames(0)[..., 0], frames(0)[..., 0], [0]),
        (np.broadcast_to(np.uint8(0), (1, 5000, 5000, 3)),) * 2 + ([0],),
    ],
)
def test_wrong_input_is_refused(shown, initials, subtasks):
    with Box(program(BRIGHTNESS)) as box, pytest.raises(BoxError):
        box.judge(shown, initials, np.array(subtasks))


def test_it_works_inside_a_ray_worker(ray_cluster):
    import ray

    @ray.remote(num_cpus=0, runtime_env={"env_vars": {"PYTHONPATH": str(Path(carl.__file__).parents[1])}})
    def remote() -> tuple[list[float], int]:
        import numpy as np

        from carl.program import RewardProgram, SubTask
        from carl.sandbox.box import Box

        source = "def progress(frame, initial):\n    return frame[0, 0, 0] / 255\n"
        with Box(RewardProgram(subtasks=(SubTask(name="s", code=source),))) as box:
            shown = np.full((2, 8, 8, 3), 255, np.uint8)
            return box.judge(shown, shown, np.zeros(2, dtype=np.intp)).values.tolist(), box.restarts

    assert ray.get(remote.remote()) == ([1.0, 1.0], 0)
