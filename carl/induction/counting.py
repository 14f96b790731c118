"""Counting pixels by what they show and where they are, frame by frame.

What does not differ from the initial frame is counted once an episode: in most pictures little moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from carl.induction.pixels import CODES, Codes, Property, Rgb, coded, weights
from carl.vision import Frame, Mask

SEED = 0
"""Of the random numbers that tell sets of regions apart."""

Values = NDArray[np.float32]
Moments = NDArray[np.float64]
Positions = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Shown:
    """What T frames of an episode show.

    Attributes:
        frames: T.
        width: of a frame.
        initial: the codes of the initial frame, ``uint8[H * W]``.
        frame, pixel: of the K pixels that differ from the initial frame, in the order of frames: ``intp[K]``.
        codes: theirs, ``uint8[K]``.
    """

    frames: int
    width: int
    initial: Codes
    frame: Positions
    pixel: Positions
    codes: Codes

    @classmethod
    def of(cls, frames: Frame, initial: Frame, tints: Sequence[Rgb] = ()) -> "Shown":
        """What ``frames``, ``uint8[T, H, W, 3]``, show of an episode that began with ``initial``."""
        other = frames[..., 0] != initial[..., 0]
        for channel in (1, 2):
            other |= frames[..., channel] != initial[..., channel]
        places = np.flatnonzero(other)
        frame, pixel = np.divmod(places, initial[..., 0].size)
        before = initial.reshape(-1, 3)
        codes = coded(frames.reshape(-1, 3)[places], before[pixel], tints)
        return cls(len(frames), initial.shape[1], coded(before, before, tints), frame, pixel, codes)

    @cached_property
    def before(self) -> Codes:
        """The codes of the same K pixels in the initial frame, ``uint8[K]``."""
        return self.initial[self.pixel]

    def moments(self, moving: tuple[Property, ...]) -> Moments:
        """Pixels, and the sums of their columns and rows, by property: ``float64[3, T, len(moving)]``."""
        index, old = (self.frame * CODES + codes for codes in (self.codes, self.before))
        rows, columns = np.divmod(np.arange(self.initial.size), self.width)
        counts = []
        for weight in (np.ones(self.initial.size), columns, rows):
            here = weight[self.pixel]
            gained, lost = (np.bincount(each, here, minlength=self.frames * CODES) for each in (index, old))
            whole = np.bincount(self.initial, weight, minlength=CODES)
            counts.append((gained - lost).reshape(self.frames, CODES) + whole)
        return np.asarray(np.array(counts) @ weights(moving).astype(float))


@dataclass(frozen=True, eq=False)
class Atoms:
    """The coarsest parts of a picture of which all given masks are made: what is counted once serves every mask.

    Attributes:
        atom: of each pixel, ``intp[H * W]``.
        inside: which of A atoms belong to which of M masks, ``float32[M, A]``.
        sizes: pixels of each mask, ``float32[M]``.
    """

    atom: Positions
    inside: Values
    sizes: Values

    @classmethod
    def of(cls, masks: Sequence[Mask]) -> "Atoms":
        """The atoms of ``masks``."""
        names = np.random.default_rng(SEED).integers(1 << 62, size=len(masks), dtype=np.uint64)
        signature = np.zeros(masks[0].size, np.uint64)
        for mask, name in zip(masks, names, strict=True):
            signature[np.flatnonzero(mask)] += name
        _, example, atom = np.unique(signature, return_index=True, return_inverse=True)
        inside = np.array([mask.ravel()[example] for mask in masks], np.float32)
        sizes = np.array([np.count_nonzero(mask) for mask in masks], np.float32)
        return cls(atom.astype(np.intp), inside, sizes)

    def sizes_of(self, mask: Mask) -> Values:
        """Pixels that each mask shares with another one, ``bool[H * W]``: ``float32[M]``."""
        return self.inside @ np.bincount(self.atom[mask], minlength=self.inside.shape[1]).astype(np.float32)

    def shares(self, shown: Shown, shared: tuple[Property, ...]) -> Values:
        """Shares of the pixels of each mask with each property, ``float32[len(shared) * M, T]``; counts are exact."""
        count = self.inside.shape[1]
        whole = np.bincount(self.atom * CODES + shown.initial, minlength=count * CODES).reshape(count, CODES)
        of_mask = np.repeat((self.inside @ (whole.astype(np.float32) @ weights(shared)))[None], shown.frames, axis=0)
        frame, atom, gained = self._gained(shown, shared)
        bounds = np.searchsorted(frame, np.arange(shown.frames + 1))
        for at in np.flatnonzero(np.diff(bounds)).tolist():
            here = slice(bounds[at], bounds[at + 1])
            of_mask[at] += self.inside[:, atom[here]] @ gained[here]
        shares = of_mask.astype(np.float64) / np.maximum(self.sizes, 1)[:, None]
        return np.asarray(shares.transpose(2, 1, 0).reshape(-1, shown.frames), np.float32)

    def _gained(self, shown: Shown, shared: tuple[Property, ...]) -> tuple[Positions, Positions, Values]:
        """The frames and atoms with pixels that differ, ``intp[R]`` each, and how many more of them have each property,
        ``float32[R, len(shared)]``."""
        count = self.inside.shape[1]
        index = shown.frame * count + self.atom[shown.pixel]
        touched = np.flatnonzero(np.bincount(index, minlength=shown.frames * count))
        row = np.zeros(shown.frames * count, np.intp)
        row[touched] = np.arange(len(touched))
        occurring = np.flatnonzero(
            np.bincount(shown.codes, minlength=CODES) + np.bincount(shown.before, minlength=CODES)
        )
        position = np.zeros(CODES, np.intp)
        position[occurring] = np.arange(len(occurring))
        rows, kinds = row[index] * len(occurring), len(occurring)
        more, fewer = (
            np.bincount(rows + position[codes], minlength=len(touched) * kinds) for codes in (shown.codes, shown.before)
        )
        gained = (more - fewer).reshape(len(touched), kinds).astype(np.float32) @ weights(shared)[occurring]
        frame, atom = np.divmod(touched, count)
        return frame, atom, gained
