"""Programs to try the gate with: good ones in harmless variants, and bad ones of the kinds that it once accepted.

``good_programs`` are those of the embedded model, written in other ways, with thresholds moved within their margins,
and with partial progress by the distance to their own object. ``bad_programs`` are done too early, pay for nothing,
take something else for the event, lack a sub-task, or are mutants of the code. What of them is bad indeed is for the
oracle to say: some mutants do what their original does.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from benchmarks.mutants import mutants
from carl.nano import programs
from carl.program import RewardProgram, SubTask

EVENTS = {
    "key": "key carried",
    "door": "door open",
    "put down": "key put down",
    "box": "box carried",
    "goal": "goal reached",
    "red door": "red door open",
    "blue door": "both doors open",
    "locked door": "locked door open",
    "ball": "ball carried",
}
"""Kinds of sub-tasks, and the oracle events that they claim."""

PLANS = {
    "DoorKey-6x6": ("key", "door", "goal"),
    "DoorKey-8x8": ("key", "door", "goal"),
    "Unlock": ("key", "door"),
    "UnlockPickup": ("key", "door", "put down", "box"),
    "RedBlueDoors-6x6": ("red door", "blue door"),
    "KeyCorridorS3R1": ("key", "locked door", "put down", "ball"),
}

UNSEEN = ("RedBlueDoors-6x6", "KeyCorridorS3R1")
"""Those of them that the gate's limits were not set with."""

_RED, _BLUE = (f"vision.near({{}}, {rgb}, 10)" for rgb in ((170, 0, 0), (0, 0, 170)))

_SHUT = """\
from carl import vision


def progress(frame, initial):
    # a shut door is an outline of its colour, darker than the agent's red; an open one keeps one side of it
"""

CODES = {
    "key": programs.PICK_UP_KEY,
    "door": programs.OPEN_DOOR,
    "put down": programs.PUT_DOWN_KEY,
    "box": programs.with_free_hands(programs.PICK_UP_BOX),
    "goal": programs.REACH_GOAL,
    "red door": f"{_SHUT}    red = {_RED.format('initial')}\n"
    f"    return float(red.any() and vision.share({_RED.format('frame')}, red) < 0.5)\n",
    "blue door": f"{_SHUT}    red, blue = {_RED.format('initial')}, {_BLUE.format('initial')}\n"
    f"    shut = max(vision.share({_RED.format('frame')}, red), vision.share({_BLUE.format('frame')}, blue))\n"
    "    return float(blue.any() and shut < 0.5)\n",
    "locked door": programs.OPEN_DOOR,
    "ball": programs.with_free_hands(programs.PICK_UP_BALL),
}
"""Right code by kind of sub-task: the embedded model's, and by hand for doors that are told by their colours."""

THINGS = {
    "key": "vision.shaped(vision.band(initial, 60) & ~walls, taller=1.6, min_area=5, min_width=2)",
    "door": "vision.largest(vision.solid(vision.band(initial, 40, 200) & ~walls, 5))",
    "box": "vision.largest(vision.solid(vision.filled(vision.band(initial, 25, 150) & ~walls, 2) & ~vision.grown("
    "vision.solid(vision.band(initial, 40, 200) & ~walls, 5)), 5))",
    "goal": "vision.largest(vision.solid(vision.band(initial, 200), 5))",
    "red door": "vision.filled(vision.near(initial, (170, 0, 0), 10), 8)",
    "blue door": "vision.filled(vision.near(initial, (0, 0, 170), 10), 8)",
    "ball": "vision.largest(vision.solid(vision.band(initial, 60) & ~walls, 4) & "
    "~vision.grown(vision.solid(vision.band(initial, 60) & ~walls, 7)))",
    "corner": "np.indices(initial.shape[:2]).sum(axis=0) < 16",
}
THINGS["locked door"] = THINGS["door"]
"""Where in the initial frame the object of a kind of sub-task lies."""

MARGINS = {
    "key": (("> 0.5", "> 0.4"), ("> 0.5", "> 0.6"), ("1.6", "1.5"), ("initial, 60", "initial, 58")),
    "door": (("< 0.6", "< 0.55"), ("< 0.6", "< 0.65"), ("initial, 40, 200", "initial, 38, 205")),
    "put down": (("1.6", "1.5"), ("frame, 60", "frame, 58")),
    "box": (("> 0.2", "> 0.15"), ("> 0.2", "> 0.25")),
    "goal": (("> 0.1", "> 0.08"), ("> 0.1", "> 0.12"), ("initial, 200", "initial, 190")),
    "red door": (("< 0.5", "< 0.45"), ("< 0.5", "< 0.6"), ("170, 0, 0), 10", "170, 0, 0), 14")),
    "blue door": (("< 0.5", "< 0.45"), ("< 0.5", "< 0.6"), ("0, 0, 170), 10", "0, 0, 170), 14")),
    "ball": (("> 0.5", "> 0.4"), ("> 0.5", "> 0.6")),
}
MARGINS["locked door"] = MARGINS["door"]
"""Numbers that may be moved: what is written, and what may stand there."""

REWRITTEN = {
    "key": (("vision.share(vision.changed(frame, initial), key)", "vision.changed(frame, initial)[key].mean()"),),
    "door": (("& ~vision.border_region(initial)", "& (vision.border_region(initial) == 0)"),),
    "put down": (("float(key.any())", "1.0 if key.sum() > 0 else 0.0"),),
    "box": (("vision.share(vision.changed(frame, initial), box)", "vision.changed(frame, initial)[box].mean()"),),
    "goal": (("vision.changed(frame, initial)", "(vision.brightness(cv2.absdiff(frame, initial)) > 24)"),),
    "red door": (("float(red.any() and", "float(red.sum() > 0 and"),),
    "blue door": (("float(blue.any() and", "float(blue.sum() > 0 and"),),
    "ball": (("vision.share(vision.changed(frame, initial), ball)", "vision.changed(frame, initial)[ball].mean()"),),
}
REWRITTEN["locked door"] = REWRITTEN["door"]
"""Other ways to write the same."""

_HEAD = "import cv2\nimport numpy as np\n\nfrom carl import vision\n\n\n"

_PARTS = (
    _HEAD
    + """\
def agent_of(frame, thing):
    red = vision.colour(frame, "red", 100, 100) & ~vision.grown(thing, 1)
    found = np.zeros(red.shape, dtype=bool)
    for b in vision.blobs(red, 6):
        if 3 <= b.w <= 7 and 3 <= b.h <= 7:
            found[b.y : b.y + b.h, b.x : b.x + b.w] = True
            return found
    return found


def thing_of(initial):
    walls = vision.border_region(initial)
    return THING


"""
)
"""Where the agent and an object are, for programs about distances."""


class Named(NamedTuple):
    """A program of the zoo.

    Attributes:
        kind: what it is an example of.
        name: which example.
        program: itself.
        events: the oracle event that each of its sub-tasks claims.
    """

    kind: str
    name: str
    program: RewardProgram
    events: tuple[str, ...]


def good_programs(task_name: str) -> list[Named]:
    """The embedded model's program of a task of ``PLANS``, and its harmless variants."""
    plan = PLANS[task_name]
    found = [_named("good", "embedded", plan)]
    for kind in plan:
        for old, new in MARGINS[kind]:
            found.append(_named("margin", f"{kind}: {old} as {new}", plan, {kind: CODES[kind].replace(old, new)}))
        for old, new in REWRITTEN[kind]:
            code = CODES[kind].replace(old, new).replace("from carl", "import cv2\n\nfrom carl", 1)
            found.append(_named("rewritten", f"{kind}: {new}", plan, {kind: code}))
    for cap in (0.25, 0.4):
        graded = {kind: nearer(kind, kind, cap) for kind in plan if kind in THINGS}
        found.append(_named("graded", f"distance to its own object, at most {cap}", plan, graded))
    found.append(_named("weighed", "the last sub-task weighs 2", plan, weights=(*[1.0] * (len(plan) - 1), 2.0)))
    return found


def bad_programs(task_name: str) -> list[Named]:
    """Programs of every kind that the gate has to reject, and mutants, of which some may be harmless."""
    plan = PLANS[task_name]
    return [*_early(plan), *_dropped(plan), *_for_nothing(plan), *_wrongly_graded(plan), *_mutants(plan)]


def _named(
    kind: str, name: str, plan: Sequence[str], codes: dict[str, str] | None = None, weights: Sequence[float] = ()
) -> Named:
    """A program by a plan, with other ``codes`` than the embedded model's for some of its sub-tasks."""
    written = {**CODES, **(codes or {})}
    subtasks = tuple(
        SubTask(name=step, code=written[step], weight=weight)
        for step, weight in zip(plan, weights or [1.0] * len(plan), strict=True)
    )
    return Named(kind, name, RewardProgram(subtasks=subtasks), tuple(EVENTS[step] for step in plan))


def near(kind: str, pixels: float) -> str:
    """Code that is done when the agent is within ``pixels`` of a thing: a tile has 8."""
    return _parts(kind) + (
        "def progress(frame, initial):\n    thing = thing_of(initial)\n"
        f"    return float(vision.distance(agent_of(frame, thing), thing) < {pixels})\n"
    )


def facing(kind: str) -> str:
    """Code that is done when the agent stands beside a thing and looks at it: its tip is nearer than its middle."""
    return _parts(kind) + (
        "def progress(frame, initial):\n    thing = thing_of(initial)\n    agent = agent_of(frame, thing)\n"
        "    red = vision.colour(frame, 'red', 100, 100) & agent\n"
        "    if not (red.any() and thing.any()) or vision.distance(agent, thing) > 10:\n        return 0.0\n"
        "    (x, y), (u, v) = vision.centre(red), vision.centre(agent)\n    (a, b) = vision.centre(thing)\n"
        "    # a triangle's mass lies towards its base\n"
        "    return float((u - x) * (a - u) + (v - y) * (b - v) > 0.2)\n"
    )


def nearer(kind: str, thing: str, cap: float) -> str:
    """The code of a sub-task with partial progress up to ``cap``: how near the agent is to the object of ``thing``."""
    return _partly(
        kind,
        thing,
        "    thing = thing_of(initial)\n    far = max(initial.shape[:2])\n"
        f"    part = {cap} * max(0.0, 1.0 - vision.distance(agent_of(frame, thing), thing) / far)\n",
    )


def graded_by(kind: str, part: str) -> str:
    """The code of a sub-task whose partial progress is what ``part`` (statements) sets: anything but nearness."""
    return _partly(kind, kind if kind in THINGS else "corner", part)


def _parts(thing: str) -> str:
    return _PARTS.replace("THING", THINGS[thing])


def _partly(kind: str, thing: str, part: str) -> str:
    """The code of a sub-task that shows ``part`` (statements that set it) until it is done."""
    done = CODES[kind].removeprefix("from carl import vision\n\n\n").replace("def progress", "def done")
    return (
        f"{_parts(thing)}{done}\n\ndef progress(frame, initial):\n    if done(frame, initial) >= 1.0:\n"
        f"        return 1.0\n{part}    return float(part)\n"
    )


def _early(plan: Sequence[str]) -> Iterator[Named]:
    """Done before the event: beside the object, in front of it, near it; and by the share of what has changed."""
    for kind in plan:
        if kind in THINGS:
            yield _named("early", f"{kind}: beside it", plan, {kind: near(kind, 9.5)})
            yield _named("early", f"{kind}: near it", plan, {kind: near(kind, 18)})
            yield _named("early", f"{kind}: facing it", plan, {kind: facing(kind)})
    for share in (0.02, 0.03, 0.05):
        ratio = f"vision.changed(frame, initial).mean() / {share}"
        code = f"{_HEAD}def progress(frame, initial):\n    return min(1.0, {ratio})\n"
        yield _named("timer", f"share of changed pixels by {share} alone", plan[-1:], {plan[-1]: code})
        yield _named("timer", f"share of changed pixels by {share} at last", plan, {plan[-1]: code})


def _dropped(plan: Sequence[str]) -> Iterator[Named]:
    for kind in plan:
        rest = [step for step in plan if step != kind]
        yield _named("dropped last" if kind == plan[-1] else "dropped", kind, rest)
    if len(plan) > 2:
        yield _named("dropped last", "all but the first", plan[:1])


def _for_nothing(plan: Sequence[str]) -> Iterator[Named]:
    """Paid in part for having moved at all, and for how much has changed."""
    for cap in (0.3, 0.6, 0.9):
        moved = f"    part = {cap} * float(vision.changed(frame, initial).any())\n"
        yield _named("moved", f"{cap} in every sub-task", plan, {kind: _partly(kind, "corner", moved) for kind in plan})
        yield _named("moved", f"{cap} in the first", plan, {plan[0]: _partly(plan[0], "corner", moved)})
    for cap in (0.5, 0.9):
        share = f"    part = {cap} * min(1.0, vision.changed(frame, initial).mean() / 0.05)\n"
        codes = {kind: _partly(kind, "corner", share) for kind in plan}
        yield _named("timer", f"{cap} of changed pixels in every sub-task", plan, codes)


def _wrongly_graded(plan: Sequence[str]) -> Iterator[Named]:
    """Partial progress by something that goes along with the way to the sub-task, and is not it."""
    for cap in (0.6, 0.9):
        for axis, name in ((1, "column"), (0, "row")):
            part = (
                "    agent = agent_of(frame, np.zeros(frame.shape[:2], dtype=bool))\n"
                f"    part = {cap} * max(0.0, vision.centre(agent)[{1 - axis}] / frame.shape[{axis}])\n"
            )
            codes = {kind: _partly(kind, "corner", part) for kind in plan}
            yield _named("wrongly graded", f"the agent's {name}, at most {cap}", plan, codes)
        wrong = dict(zip(plan, [*plan[1:], plan[0]], strict=True))
        codes = {kind: nearer(kind, thing if thing in THINGS else "corner", cap) for kind, thing in wrong.items()}
        yield _named("wrongly graded", f"distance to another object, at most {cap}", plan, codes)
        codes = {kind: nearer(kind, "corner", cap) for kind in plan}
        yield _named("wrongly graded", f"distance to a corner, at most {cap}", plan, codes)


def _mutants(plan: Sequence[str]) -> Iterator[Named]:
    by_kind = ((kind, mutants(CODES[kind])) for kind in plan)
    return chain.from_iterable(
        (_named("mutant", f"{kind}: {what}", plan, {kind: code}) for what, code in found) for kind, found in by_kind
    )
