"""What a policy makes of a task's spaces, and the environment of its actions."""

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from carl.errors import TaskError
from carl.training.rllib.spaces import Actions, Observations

PICTURE = spaces.Box(0, 255, (4, 5, 3), np.uint8)
VECTOR = spaces.Box(-1, 1, (2,), np.float32)


def batched(space: gym.Space[Any], count: int = 3) -> Any:
    space.seed(1)
    return concatenate(space, [space.sample() for _ in range(count)], create_empty_array(space, count))


def packed(space: gym.Space[Any], count: int = 3) -> np.ndarray:
    observations = Observations(space)
    rows = observations.pack(batched(space, count))
    assert rows.shape == (count, *observations.space.shape)
    assert rows.dtype == observations.space.dtype
    assert all(observations.space.contains(row) for row in rows)
    return rows


def test_a_flat_box_of_floats_stays_as_it_is():
    rows = batched(VECTOR)
    assert Observations(VECTOR).pack(rows) is rows
    assert Observations(VECTOR).space is VECTOR


@pytest.mark.parametrize(
    ("space", "observation", "row"),
    [
        (spaces.Discrete(3, start=5), 6, [0, 1, 0]),
        (spaces.MultiDiscrete([2, 3], start=[1, 0]), [2, 2], [0, 1, 0, 0, 1]),
        (spaces.MultiBinary((2, 2)), [[1, 0], [0, 1]], [1, 0, 0, 1]),
        (spaces.Box(-9, 9, (2,), np.int64), [-3, 4], [-3, 4]),
        (spaces.Box(0, 255, (2,), np.uint8), [0, 255], [0, 1]),
        (spaces.Box(-np.inf, np.inf, (2,), np.float64), [1.5, -2], [1.5, -2]),
        (spaces.Box(-1, 1, (1, 2), np.float32), [[0.5, 1]], [0.5, 1]),
    ],
    ids=lambda value: str(value) if isinstance(value, gym.Space) else "",
)
def test_other_observations_become_floats(space, observation, row):
    rows = Observations(space).pack(np.array([observation], dtype=space.dtype))
    assert rows.dtype == np.float32
    assert rows.tolist() == [row]


def test_parts_of_dicts_and_tuples_follow_one_another():
    space = spaces.Dict(b=spaces.Tuple((spaces.Discrete(2), VECTOR)), a=spaces.MultiBinary(2))
    parts = {"a": np.array([[1, 1]]), "b": (np.array([1]), np.array([[0.5, -1]], np.float32))}
    assert Observations(space).pack(parts).tolist() == [[0, 1, 0.5, -1, 1, 1]]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (2, 4, 5, 3)], ids=str)
def test_bytes_of_pictures_come_first_and_are_the_same(shape):
    picture = spaces.Box(0, 255, shape, np.uint8)
    space = spaces.Dict(z=picture, progress=VECTOR)
    rows, parts = packed(space), batched(space)
    assert Observations(space).pictures == [shape]
    count = int(np.prod(shape))
    assert np.array_equal(rows[:, :count], parts["z"].reshape(3, -1))
    assert np.array_equal(np.ascontiguousarray(rows[:, count:]).view(np.float32), parts["progress"])


def test_pictures_alone_take_a_byte_for_each_pixel():
    assert packed(PICTURE).nbytes == batched(PICTURE).nbytes


def test_pictures_of_floats_are_known_as_such():
    observations = Observations(spaces.Tuple((VECTOR, spaces.Box(0, 1, (3, 4, 5), np.float32))))
    assert (observations.grids, observations.width, observations.space.dtype) == ([(3, 4, 5)], 2, np.float32)


ACTIONS = {
    "choice": spaces.Discrete(3, start=-1),
    "choices": spaces.MultiDiscrete([2, 3], start=[1, 1]),
    "square": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "bits": spaces.MultiBinary(3),
    "integers": spaces.Box(-1, 1, (2,), np.int64),
    "numbers": spaces.Box(np.array([-2, 0]), np.array([3, 1]), dtype=np.float64),
    "matrix": spaces.Box(-1, 1, (1, 2), np.float32),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "half-bounded": spaces.Box(np.float32([0, -np.inf]), np.float32([np.inf, 1]), dtype=np.float32),
    "huge": spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (1,), np.float32),
    "dict": spaces.Dict(move=spaces.Discrete(2, start=1), force=spaces.Box(-1, 4, (2,), np.float32)),
    "tuple of choices": spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(2))),
}


@pytest.mark.parametrize("space", ACTIONS.values(), ids=ACTIONS)
def test_whatever_is_drawn_is_an_action(space):
    actions = Actions(space)
    flat = [
        np.concatenate(drawn, dtype=np.float32) if isinstance(drawn, tuple) else drawn
        for drawn in (actions.space.sample() for _ in range(50))
    ]
    taken = list(iterate(batch_space(space, 50), actions.unpack(np.stack(flat))))
    assert len(taken) == 50
    assert all(space.contains(action) for action in taken)


def test_choices_are_counted_from_the_start():
    assert Actions(ACTIONS["choice"]).unpack(np.array([0, 1, 2])).tolist() == [-1, 0, 1]
    assert Actions(ACTIONS["choices"]).unpack(np.array([[0, 0], [1, 2]])).tolist() == [[1, 1], [2, 3]]
    assert Actions(ACTIONS["integers"]).unpack(np.array([[0, 2]])).tolist() == [[-1, 1]]


def test_numbers_are_stretched_between_two_bounds_and_clipped_at_one():
    assert Actions(ACTIONS["numbers"]).unpack(np.array([[-1, 0], [9, 1]])).tolist() == [[-2, 0.5], [3, 1]]
    assert Actions(ACTIONS["half-bounded"]).unpack(np.array([[-1, 9], [5, -5]])).tolist() == [[0, 1], [5, -5]]
    assert Actions(ACTIONS["unbounded"]).unpack(np.array([[-7, 9]])).tolist() == [[-7, 9]]
    assert [Actions(ACTIONS[name]).bounded for name in ("numbers", "half-bounded", "huge")] == [True, False, False]


def test_of_both_the_choices_come_first():
    taken = Actions(ACTIONS["dict"]).unpack(np.array([[1, -1, 1]], np.float32))
    assert {key: value.tolist() for key, value in taken.items()} == {"move": [2], "force": [[-1, 4]]}


@pytest.mark.parametrize("kind", [Observations, Actions])
def test_packed_spaces_know_what_they_are_made_of_wherever_they_go(kind):
    space = spaces.Dict(a=spaces.Discrete(2, start=1), b=VECTOR)
    for there in (copy.deepcopy, lambda packed: pickle.loads(pickle.dumps(packed))):
        assert kind(there(kind(space).space)).original == space


@pytest.mark.parametrize(
    ("kind", "space", "message"),
    [
        (Observations, spaces.Dict(mission=spaces.Text(9)), r"the part \['mission'\] of a space, Text"),
        (Observations, spaces.Sequence(VECTOR), "no policy can see or act in Sequence"),
        (Observations, spaces.Discrete(10**7), "has 10000000 numbers"),
        (Actions, spaces.Box(-(2**40), 2**40, (1,), np.int64), "no policy can choose among"),
    ],
    ids=str,
)
def test_what_cannot_be_made_numbers_is_refused(kind, space, message):
    with pytest.raises(TaskError, match=message):
        kind(space)
