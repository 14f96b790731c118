"""A trajectory as columns of a Parquet file, and back."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from carl.errors import StoreError
from carl.task import Frame

if TYPE_CHECKING:
    from carl.episodes.trajectory import Trajectory

FRAME = "frame"
EVENT = "event:"
"""Prefix of the columns that hold oracle events."""

METADATA = b"carl"
ONE_LAYOUT = "a store holds episodes of one task, recorded the same way"


def writer(file: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """Writes one page per column and row group: consecutive frames in a page compress together.

    What a reader has to unpack at once is bounded by the row group: pyarrow 26.0.1 compares a page with
    ``data_page_size`` only after every 1,024 rows (``write_batch_size``), however large they are.
    """
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        data_page_size=1 << 30,
    )


def check_layout(schema: pa.Schema, first: pa.Schema) -> None:
    """Raise StoreError if an episode has another schema than the first of its file."""
    if not schema.equals(first, check_metadata=True):
        raise StoreError(
            f"an episode has other frames, actions or events ({schema.metadata[METADATA].decode()}) than the first "
            f"({first.metadata[METADATA].decode()}); {ONE_LAYOUT}"
        )


def schema_of(trajectory: "Trajectory") -> pa.Schema:
    """The schema of its ``tables``."""
    return next(tables(trajectory, 1)).schema


def tables(trajectory: "Trajectory", rows: int) -> Iterator[pa.Table]:
    """One episode as T + 1 rows, at most ``rows`` to a table; raises StoreError if its fields do not fit together."""
    steps, frames, actions = len(trajectory), trajectory.frames, trajectory.actions
    if frames.dtype != np.uint8 or len(frames) != steps + 1 or len(trajectory.rewards) != steps:
        raise StoreError(
            f"the trajectory of seed {trajectory.seed} has {steps} actions, {len(trajectory.rewards)} rewards and "
            f"frames {frames.dtype}{list(frames.shape)}; T steps need T + 1 frames of uint8"
        )
    last = np.arange(steps + 1) == steps
    others = {
        "action": _action_column(actions),
        "reward": pa.array(np.append(trajectory.rewards, 0.0), pa.float64(), mask=last),
        "terminated": pa.array(last & trajectory.terminated),
        "truncated": pa.array(last & trajectory.truncated),
        "success": pa.array(last & trajectory.success),
        "seed": pa.array(np.full(steps + 1, trajectory.seed, dtype=np.int64)),
        "source": pa.array([trajectory.role] * (steps + 1)),
        **{EVENT + name: pa.array(np.asarray(event, dtype=bool)) for name, event in trajectory.events.items()},
    }
    shapes = {FRAME: frames.shape[1:], "action": actions.shape[1:], "action_dtype": actions.dtype.str}
    metadata = {METADATA: json.dumps(shapes)}
    for start in range(0, steps + 1, rows):
        chunk = _bytes_column(frames[start : start + rows])
        columns = {FRAME: chunk} | {name: column.slice(start, rows) for name, column in others.items()}
        yield pa.table(columns, metadata=metadata)


def _bytes_column(frames: Frame) -> pa.Array:
    data = np.ascontiguousarray(frames)
    return pa.Array.from_buffers(pa.binary(data[0].nbytes), len(data), [None, pa.py_buffer(data)])


def _action_column(actions: NDArray[Any]) -> pa.Array:
    """The actions and, for the last frame, a null."""
    flat = pa.array(np.ascontiguousarray(actions).reshape(-1))
    if actions.ndim > 1:
        flat = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(actions.shape[1:])))
    return pa.concat_arrays([flat, pa.nulls(1, flat.type)])


def fields(table: pa.Table) -> dict[str, Any]:
    """What ``tables`` made of the fields of a trajectory, all but its frames."""
    events = [name for name in table.column_names if name.startswith(EVENT)]
    return {
        "actions": decode(table, "action"),
        "rewards": decode(table, "reward"),
        "terminated": bool(table["terminated"][-1].as_py()),
        "truncated": bool(table["truncated"][-1].as_py()),
        "success": bool(table["success"][-1].as_py()),
        "seed": int(table["seed"][0].as_py()),
        "role": str(table["source"][0].as_py()),
        "events": {name.removeprefix(EVENT): decode(table, name) for name in events},
    }


def frame_size(table: pa.Table) -> tuple[int, ...]:
    """(H, W, 3)."""
    return tuple(_shapes(table)[FRAME])


def _shapes(table: pa.Table) -> Mapping[str, Any]:
    shapes: Mapping[str, Any] = json.loads(table.schema.metadata[METADATA])
    return shapes


def decode(table: pa.Table, name: str) -> NDArray[Any]:
    """One column as an array; of ``action`` and ``reward`` without the last row."""
    shapes = _shapes(table)
    column = table[name].combine_chunks()
    if name == FRAME:
        size = column.type.byte_width
        data = np.frombuffer(column.buffers()[1], np.uint8, len(column) * size, column.offset * size)
        data.flags.writeable = False
        return data.reshape(len(column), *shapes[FRAME])
    if name not in ("action", "reward"):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    column = column.slice(0, len(column) - 1)
    if name == "action" and shapes["action"]:
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat, dtype=shapes["action_dtype"]).reshape(len(column), *shapes["action"])
    dtype = shapes["action_dtype"] if name == "action" else np.float64
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=dtype)
