"""Scenes as tensors: pictures and their dialogues, packed so that the pictures are encoded once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from carl.nano import scenes
from carl.nano.answers import NAME_REQUEST, decomposition, program_answer, subgoal_name, write_request
from carl.nano.model import AFTER, BEFORE, CANVAS, END, IMAGE, IMAGE_TOKENS, token
from carl.nano.scenes import Scene
from carl.seeding import Role, spawn
from carl.task import Frame

PAIRS, PAIR_SHARES = (1, 2, 3), (0.10, 0.85, 0.05)
"""How many episodes a request shows, and how often in training."""

Dialogue = tuple[str, str]
"""A request's last line, and its answer."""


@dataclass
class Batch:
    """B scenes of N pictures each, as rows of L tokens: pictures, then one or two dialogues that do not see each other.

    Attributes:
        ids: ``int64[B, L]``, tokens.
        positions: ``int64[B, L]``, each dialogue's counted from the end of the pictures.
        mask: ``bool[B, 1, L, L]``, the tokens that each token attends to.
        targets: ``int64[B, L]``, the token to predict; -100 for none.
        pixels: ``float32[B * N, 3, 128, 128]``.
        families: of each scene.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    targets: Tensor
    pixels: Tensor
    families: list[str]


def scenes_of(
    seed: int, role: Role, step: int, count: int, family: str | None = None, pairs: int | None = None
) -> list[Scene]:
    """The scenes of one update: a function of its arguments, so that a resumed training equals an uninterrupted one."""
    rng = np.random.default_rng(spawn(seed, role, step))
    pairs = pairs or int(rng.choice(PAIRS, p=PAIR_SHARES))
    return [scenes.draw(rng, pairs, family) for _ in range(count)]


def dialogues(scene: Scene, index: int) -> list[Dialogue]:
    """The dialogues about a scene: the sub-tasks, and the program of one of them."""
    number = index % len(scene.subgoals)
    name = subgoal_name(scene, scene.subgoals[number])
    return [
        (NAME_REQUEST, decomposition(scene)),
        (write_request(number + 1, len(scene.subgoals), name), program_answer(scene, scene.subgoals[number])),
    ]


def corpus(seed: int, count: int = 2000) -> list[str]:
    """Texts to train the tokenizer on."""
    rng = np.random.default_rng(spawn(seed, Role.TRAINING, 2**31))
    found = []
    for index in range(count):
        for request, answer in dialogues(scenes.draw(rng, 1 + index % 2), int(rng.integers(8))):
            found += [request + "\n", answer]
    return found


def canvas(frames: Sequence[Frame]) -> Tensor:
    """Frames as the processor gives them to the model: ``float32[N, 3, 128, 128]`` in [0, 2], padded with black."""
    pixels = np.zeros((len(frames), CANVAS, CANVAS, 3), dtype=np.uint8)
    for row, frame in zip(pixels, frames, strict=True):
        row[: frame.shape[0], : frame.shape[1]] = frame
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().mul_(2.0 / 255.0)


def practice(batch: Sequence[Scene], step: int) -> list[list[Dialogue]]:
    """The dialogues of an update: the sub-tasks of every scene, and a program of every second one."""
    return [dialogues(scene, step + place)[: 1 + place % 2] for place, scene in enumerate(batch)]


def collate(batch: Sequence[Scene], spoken: Sequence[Sequence[Dialogue]], tokenizer: Tokenizer) -> Batch:
    """Scenes with equally many pictures, and the dialogues about each, as one Batch."""
    prefix = _picture_ids(tokenizer, len(batch[0].frames))
    rows = [_row(tokenizer, prefix, each) for each in spoken]
    length = max(len(row[0]) for row in rows)
    ids, positions, targets, groups = (
        torch.tensor([part + [fill] * (length - len(part)) for part in column])
        for column, fill in zip(zip(*rows, strict=True), (0, 0, -100, -1), strict=True)
    )
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = (groups[:, None, :] == 0) | (groups[:, None, :] == groups[:, :, None])
    pixels = canvas([frame for scene in batch for frame in scene.frames])
    return Batch(ids, positions, (seen & causal)[:, None], targets, pixels, [scene.family for scene in batch])


def _picture_ids(tokenizer: Tokenizer, count: int) -> list[int]:
    picture = [token(tokenizer, IMAGE)] * IMAGE_TOKENS
    marks = [token(tokenizer, BEFORE), token(tokenizer, AFTER)]
    return [part for number in range(count) for part in [marks[number % 2], *picture]]


def _row(
    tokenizer: Tokenizer, prefix: list[int], spoken: Sequence[Dialogue]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Token ids, positions, the token to predict at each place (-100: none), and the number of its dialogue."""
    ids, positions = list(prefix), list(range(len(prefix)))
    targets, groups = [-100] * len(prefix), [0] * len(prefix)
    for group, (request, answer) in enumerate(spoken, 1):
        asked = tokenizer.encode(request + "\n").ids
        target = [*tokenizer.encode(answer).ids, token(tokenizer, END)]
        ids += asked + target[:-1]
        targets += [-100] * (len(asked) - 1) + target
        positions += range(len(prefix), len(prefix) + len(asked) + len(target) - 1)
        groups += [group] * (len(asked) + len(target) - 1)
    return ids, positions, targets, groups
