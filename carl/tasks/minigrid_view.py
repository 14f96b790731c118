"""What MiniGrid shows the agent, worked out from the cells that changed.

MiniGrid puts its partial view together anew in every step, which is most of a step's time.
"""

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from carl.errors import TaskError
from carl.task import Environment, Frame, Redraw, Rendered
from carl.tasks.minigrid_cells import ENV, GRID, Cells, own, place
from carl.tasks.minigrid_picture import TopDown

SEEN = ("unseen", "empty", "wall", "door", "key", "box", "goal")
"""Object types that the first tasks show the agent, in the order of the one-hot columns."""

SEEN_TOO = (*SEEN, "ball", "lava")
"""The same with all that later tasks hold; the first ones keep their columns, and so their policies."""

TYPES, COLOURS, STATES, DIRECTIONS = 11, 6, 3, 4
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""One step to the right, down, left, up: MiniGrid's order of directions."""

VIEW = 7
"""Side of the agent's view in cells; it stands in the middle of the nearest row."""

OUTSIDE = VIEW - 1
"""Cells around the room that may come into view; MiniGrid shows walls there."""

SHOWN_BY = ("slice", "rotate_left", "process_vis", "encode", "get", "set")
"""The methods of a grid that make a view."""

UNSEEN, EMPTY = 0, COLOURS * STATES


class FlatView(gym.Wrapper[Any, Any, Any, Any]):
    """The agent's view and its direction as a flat one-hot vector, ``float32[7 * 7 * (len(seen) + 9) + 4]``.

    A type that is not among ``seen`` shows by its colour and state alone. The view is MiniGrid's own, cell for cell.
    MiniGrid's code for it runs only where it is overridden, or where the room holds objects that are drawn by methods
    of their own. Raises TaskError at a type, colour or state that MiniGrid does not have.
    """

    def __init__(self, env: Environment, seen: tuple[str, ...] = SEEN) -> None:
        super().__init__(env)
        world: Any = env.unwrapped
        self._world, self._gen_obs = world, world.gen_obs
        self._usual = world.agent_view_size == VIEW and own(world, ENV, "gen_obs", "gen_obs_grid", "get_view_exts")
        if self._usual:
            world.gen_obs = partial(_OnDemand, self._gen_obs)
        self._grid: Any = None
        self._usual_grid = False
        self._cells, self._stride = Cells(), 0
        self._undrawn: set[int] | None = None
        self._drawer: object = None
        self._codes, self._opaque = np.zeros(0, dtype=np.intp), np.zeros(0, dtype=bool)
        self._table = _one_hot_table(seen)
        size = world.agent_view_size**2 * self._table.shape[1] + DIRECTIONS
        self.observation_space = gym.spaces.Box(0.0, 1.0, (size,), np.float32)

    def reset(self, **kwargs: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode; the observation is one flat vector."""
        _, info = self.env.reset(**kwargs)
        return self._observe(), info

    def step(self, action: Any) -> tuple[NDArray[np.float32], Any, bool, bool, dict[str, Any]]:
        """Take one of MiniGrid's seven actions; the observation is one flat vector."""
        _, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(), reward, terminated, truncated, info

    def render_onto(self, frame: Frame) -> Redraw | None:
        """What draws the room into ``frame`` as it was when last observed, so that its cells are looked at once.

        It leaves the frame alone as soon as another one is asked for.
        """
        if not isinstance(self.env, TopDown):
            return Rendered().onto(self.env, frame)
        self._drawer = object()
        return self.env.render_onto(frame, partial(self._changes, self._drawer))

    def _changes(self, drawer: object) -> set[int] | None:
        undrawn = self._undrawn
        if undrawn is None or drawer is not self._drawer:
            return None
        self._undrawn = set()
        return undrawn

    def _observe(self) -> NDArray[np.float32]:
        flat = np.zeros(self.observation_space.shape or (), dtype=np.float32)
        here = self._look()
        codes = self._asked() if here is None else self._view(here)
        flat[:-DIRECTIONS] = self._table.take(codes, axis=0).reshape(-1)
        flat[self._world.agent_dir - DIRECTIONS] = 1.0
        return flat

    def _asked(self) -> list[int]:
        """Codes of the cells in MiniGrid's own view, in its order."""
        return [_code(*cell) for cell in self._gen_obs()["image"].reshape(-1, 3).tolist()]

    def _view(self, here: int) -> NDArray[np.intp]:
        """The same from ``here``, ``intp[VIEW * VIEW]``: by column from left to right, each from far to near."""
        world = self._world
        places = _offsets(self._stride)[world.agent_dir] + here
        codes: NDArray[np.intp] = self._codes[places]
        if not world.see_through_walls:
            codes *= _visible(self._opaque[places].tobytes())  # what is not visible is UNSEEN, which is 0
        codes[VIEW * (VIEW // 2) + VIEW - 1] = EMPTY if world.carrying is None else _code(*world.carrying.encode())
        return codes

    def _look(self) -> int | None:
        """Bring the codes of all cells up to date; returns the agent's index among them, None where MiniGrid's own code
        has to make the view.

        Outside the room lie codes as well, because they may come into view.
        """
        world, grid = self._world, self._world.grid
        undrawn, self._undrawn = self._undrawn, None
        if grid is not self._grid:
            self._enter(grid)
        here = place(world) if self._usual and self._usual_grid else None
        changed = None if here is None else self._cells.changed(grid.grid)
        if here is None or changed is None:
            return None
        try:
            for index in changed:
                self._put(index)
        except BaseException:  # whatever it was, some codes may be wrong now
            self._cells = Cells()
            raise
        self._undrawn = set(range(len(grid.grid))) if undrawn is None else undrawn.union(changed)
        return self._at(here)

    def _at(self, index: int) -> int:
        y, x = divmod(index, self._grid.width)
        return int((y + OUTSIDE) * self._stride + x + OUTSIDE)

    def _put(self, index: int) -> None:
        thing, at = self._grid.grid[index], self._at(index)
        self._codes[at] = EMPTY if thing is None else _code(*thing.encode())
        self._opaque[at] = thing is not None and not thing.see_behind()

    def _enter(self, grid: Any) -> None:
        """Get ready for another grid; what is remembered of the last one holds as long as the shape does."""
        self._grid, self._usual_grid = grid, own(grid, GRID, *SHOWN_BY)
        stride, rows = grid.width + 2 * OUTSIDE, grid.height + 2 * OUTSIDE
        if (stride, stride * rows) != (self._stride, self._codes.size):
            self._cells, self._stride = Cells(), stride
            self._codes, self._opaque = np.full(stride * rows, _wall()), np.ones(stride * rows, dtype=bool)


class _OnDemand(dict[str, Any]):
    """MiniGrid's observation, made when it is read: an environment may do so in its own step."""

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: str) -> Any:
        self.update(self._make())
        return self[key]


@cache
def _code(kind: int, colour: int, state: int) -> int:
    """What MiniGrid encodes in three numbers, as one."""
    if not (kind < TYPES and colour < COLOURS and state < STATES):
        raise TaskError(
            f"an object is encoded as {kind, colour, state}, and MiniGrid's own go below {TYPES, COLOURS, STATES}; "
            "give the environment an observation of its own"
        )
    return (kind * COLOURS + colour) * STATES + state


@cache
def _wall() -> int:
    from minigrid.core.world_object import Wall

    return _code(*Wall().encode())


@cache
def _offsets(stride: int) -> NDArray[np.intp]:
    """For each direction, from the agent's place to the cells of its view, ``intp[4, VIEW * VIEW]``."""
    across, ahead = np.meshgrid(np.arange(VIEW) - VIEW // 2, np.arange(VIEW)[::-1], indexing="ij")
    step = [x + y * stride for x, y in STEPS]
    return np.array([(ahead * step[d] + across * step[(d + 1) % DIRECTIONS]).reshape(-1) for d in range(DIRECTIONS)])


_BITS = 1 << np.arange(VIEW)


@lru_cache(maxsize=4_096)
def _visible(opaque: bytes) -> NDArray[np.intp]:
    """1 for each cell that the agent sees, given which ones hide what is behind them; both in the order of a view."""
    rows = (_BITS @ np.frombuffer(opaque, dtype=bool).reshape(VIEW, VIEW)).tolist()  # one number a row, a bit a column
    lit, seen = 1 << VIEW // 2, [0] * VIEW
    for row in reversed(range(VIEW)):
        seen[row], lit = _sweep(lit, rows[row])
    visible: NDArray[np.bool_] = (_BITS[:, None] & np.array(seen)).reshape(-1) > 0
    return visible.astype(np.intp)


@cache
def _sweep(lit: int, opaque: int) -> tuple[int, int]:
    """MiniGrid's spread of sight along one row, to the right and then to the left: (this row, the row beyond)."""
    beyond = 0
    for columns, step in ((range(VIEW - 1), 1), (range(VIEW - 1, 0, -1), -1)):
        for column in columns:
            if lit >> column & 1 and not opaque >> column & 1:
                lit |= 1 << column + step
                beyond |= 1 << column | 1 << column + step
    return lit, beyond


@cache
def _one_hot_table(seen: tuple[str, ...]) -> NDArray[np.float32]:
    """One row for each (type, colour, state): its one-hot columns side by side."""
    from minigrid.core.constants import OBJECT_TO_IDX

    types = np.zeros((TYPES, len(seen)), dtype=np.float32)
    for column, name in enumerate(seen):
        types[OBJECT_TO_IDX[name], column] = 1.0
    shape = (len(types), COLOURS, STATES)
    rows = [
        np.broadcast_to(types[:, None, None], (*shape, len(seen))),
        np.broadcast_to(np.eye(COLOURS, dtype=np.float32)[None, :, None], (*shape, COLOURS)),
        np.broadcast_to(np.eye(STATES, dtype=np.float32)[None, None], (*shape, STATES)),
    ]
    return np.concatenate(rows, axis=-1).reshape(-1, len(seen) + COLOURS + STATES)
