"""The programs that the embedded model is taught to write, by kind of sub-task.

They name no colour that an environment may vary. Shape and brightness distinguish things: walls
frame the picture, a goal is solid and bright, a locked door solid and dim, a key bright, tall and thin, a box faint
and full of gaps, a ball round. Where only the colour distinguishes several things, it is named.
"""

_HEAD = "from carl import vision\n\n\ndef progress(frame, initial):\n"

REACH_GOAL = (
    _HEAD
    + """\
    # the goal is solid and bright; the agent covers part of it
    goal = vision.largest(vision.solid(vision.band(initial, 200), 5))
    return float(vision.share(vision.changed(frame, initial), goal) > 0.1)
"""
)

OPEN_DOOR = (
    _HEAD
    + """\
    # a shut door is solid and dim; an open one keeps one side of its outline
    things = vision.band(initial, 40, 200) & ~vision.border_region(initial)
    door = vision.outline(vision.largest(vision.solid(things, 5)))
    return float(door.any() and vision.share(vision.band(frame, 40), door) < 0.6)
"""
)

PICK_UP_KEY = (
    _HEAD
    + """\
    # the key is tall and thin; it is gone from where it lay
    things = vision.band(initial, 60) & ~vision.border_region(initial)
    key = vision.shaped(things, taller=1.6, min_area=5, min_width=2)
    return float(vision.share(vision.changed(frame, initial), key) > 0.5)
"""
)

PUT_DOWN_KEY = (
    _HEAD
    + """\
    # something tall and thin lies on the floor again
    things = vision.band(frame, 60) & ~vision.border_region(frame)
    key = vision.shaped(things, taller=1.6, min_area=5, min_width=2)
    return float(key.any())
"""
)

PICK_UP_BOX = (
    _HEAD
    + """\
    # the box is faint and full of gaps; it is gone from where it stood
    walls = vision.border_region(initial)
    door = vision.solid(vision.band(initial, 40, 200) & ~walls, 5)
    faint = vision.filled(vision.band(initial, 25, 150) & ~walls, 2)
    box = vision.largest(vision.solid(faint & ~vision.grown(door), 5))
    return float(vision.share(vision.changed(frame, initial), box) > 0.2)
"""
)

PICK_UP_BALL = (
    _HEAD
    + """\
    # the ball is round, smaller than a door and fuller than a key
    things = vision.band(initial, 60) & ~vision.border_region(initial)
    large = vision.grown(vision.solid(things, 7))
    ball = vision.largest(vision.solid(things, 4) & ~large)
    return float(vision.share(vision.changed(frame, initial), ball) > 0.5)
"""
)

_KEY_LIES = """\
    # only free hands can take it: the key lies on the floor
    things = vision.band(frame, 60) & ~vision.border_region(frame)
    key = vision.shaped(things, taller=1.6, min_area=5, min_width=2)
    return float(key.any() and """


def with_free_hands(source: str) -> str:
    """The program for picking something up after the key was put down: it does not count while the key is carried.

    A policy would otherwise be paid for walking on with the key and breaking the box, which looks the same.
    """
    body, condition = source.split("    return float(")
    return f"{body}{_KEY_LIES}{condition}"


_PICK_UP_COLOUR = (
    _HEAD
    + """\
    # its colour tells it from the others; it is gone from where it lay
    thing = vision.largest(vision.colour(initial, "{colour}"))
    return float(vision.share(vision.changed(frame, initial), thing) > 0.2)
"""
)


def pick_up_colour(colour: str) -> str:
    """The program for picking up the one thing of a colour, as "blue", among things of other colours."""
    return _PICK_UP_COLOUR.format(colour=colour)
