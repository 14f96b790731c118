"""The training targets: the texts that the embedded model learns to write about a scene."""

from carl.nano import programs
from carl.nano.scenes import Scene, SubGoal

NAME_REQUEST = "Task: name the sub-tasks."
"""Last line of a request for the decomposition."""

_PROGRAMS = {
    ("reach", "goal"): programs.REACH_GOAL,
    ("open", "door"): programs.OPEN_DOOR,
    ("pick up", "key"): programs.PICK_UP_KEY,
    ("put down", "key"): programs.PUT_DOWN_KEY,
    ("pick up", "box"): programs.PICK_UP_BOX,
    ("pick up", "ball"): programs.PICK_UP_BALL,
}


def write_request(index: int, count: int, name: str) -> str:
    """Last line of a request for the program of sub-task ``index`` (from 1) of ``count``."""
    return f"Task: write the program for sub-task {index} of {count}: {name}."


def _shared(colours: tuple[str, ...]) -> str | None:
    return colours[0] if len(set(colours)) == 1 else None


def subgoal_name(scene: Scene, subgoal: SubGoal) -> str:
    """As in 'pick up the yellow key'; without the colour where it differs between the episodes."""
    colour = _shared(scene.colours[subgoal.role])
    return " ".join(word for word in (subgoal.verb, "the", colour, subgoal.kind) if word)


def describe(scene: Scene) -> str:
    """The line that names the relevant things in the pictures, episode by episode.

    Naming each colour before comparing them makes the model read every episode instead of guessing whether they differ.
    """
    roles = {subgoal.kind: subgoal.role for subgoal in scene.subgoals}
    among = " among other objects" if scene.crowded else ""
    episodes = zip(*(scene.colours[role] for role in roles.values()), strict=True)
    sights = [
        ", ".join(f"a {colour} {kind}" for kind, colour in zip(roles, colours, strict=True)) for colours in episodes
    ]
    return f"Scene: {'; '.join(sight + among for sight in sights)}."


def decomposition(scene: Scene) -> str:
    """The answer to ``NAME_REQUEST``."""
    names = [subgoal_name(scene, subgoal) for subgoal in scene.subgoals]
    return "\n".join([describe(scene), *(f"{index}. {name}" for index, name in enumerate(names, 1))])


def program_answer(scene: Scene, subgoal: SubGoal) -> str:
    """The answer to a ``write_request``: a fenced program."""
    return f"```python\n{program(scene, subgoal)}```"


def program(scene: Scene, subgoal: SubGoal) -> str:
    """Code of a sub-task; it names a colour only where nothing else distinguishes the target."""
    colour = _shared(scene.colours[subgoal.role])
    if scene.crowded and colour:
        return programs.pick_up_colour(colour)
    source = _PROGRAMS[subgoal.verb, subgoal.kind]
    hands_were_full = any(other.verb == "put down" for other in scene.subgoals)
    after_that = subgoal.verb == "pick up" and subgoal.kind != "key"
    return programs.with_free_hands(source) if hands_were_full and after_that else source
