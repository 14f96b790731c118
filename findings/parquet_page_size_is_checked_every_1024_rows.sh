#!/usr/bin/env bash
# pyarrow==26.0.1 (numpy 2.4.6)
#
# `data_page_size` (1 MB unless given) bounds no page: the writer compares it with a page after each `write_batch_size`
# rows, 1,024 unless given. Rows of 10 kB make pages of 10 MB, whether the limit is 1 MB or 1 kB; images of 100 kB would
# make pages of 100 MB, each of which a reader has to unpack whole. One would expect pages of the limit's size and at
# most one row more, as write_batch_size=1 makes them; the documentation of `write_batch_size` speaks of large values,
# that of `data_page_size` does not.
#
# Seen: data_page_size 1048576, write_batch_size None: 3 pages, the largest of 10240007 bytes
#       data_page_size 1048576, write_batch_size 1: 29 pages, the largest of 1050007 bytes
#       data_page_size 1000, write_batch_size None: 3 pages, the largest of 10240007 bytes
#       data_page_size 1000, write_batch_size 1: 3000 pages, the largest of 10006 bytes
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check pyarrow==26.0.1 numpy==2.4.6
"$work/venv/bin/python" - <<'EOF'
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, ROW = 3000, 10_000
rows = np.random.default_rng(0).integers(0, 256, (ROWS, ROW), np.uint8)
table = pa.table({"image": pa.Array.from_buffers(pa.binary(ROW), ROWS, [None, pa.py_buffer(rows)])})


def varint(data, at):
    value = shift = 0
    while True:
        value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def structure(data, at):
    """A structure of Thrift's compact protocol with int32 and structures alone: its int32 by number, and its end."""
    found, number = {}, 0
    while data[at]:
        step, kind, at = data[at] >> 4, data[at] & 15, at + 1
        number += step
        if kind == 12:
            at = structure(data, at)[1]
        elif kind == 5:
            value, at = varint(data, at)
            found[number] = value >> 1
        else:
            assert kind in (1, 2), f"a field of kind {kind}"
    return found, at + 1


def pages(limit, batch):
    """Sizes in bytes of the column's pages, by their headers' field 3 (compressed_page_size)."""
    file = io.BytesIO()
    more = {} if batch is None else {"write_batch_size": batch}
    pq.write_table(table, file, data_page_size=limit, use_dictionary=False, write_statistics=False, compression="none", **more)
    data = file.getvalue()
    column = pq.read_metadata(file).row_group(0).column(0)
    at, sizes = column.data_page_offset, []
    end = at + column.total_compressed_size
    while at < end:
        header, at = structure(data, at)
        sizes.append(header[3])
        at += header[3]
    assert at == end
    return sizes


print("pyarrow", pa.__version__)
largest = {}
for limit in (1 << 20, 1000):
    for batch in (None, 1):
        sizes = pages(limit, batch)
        largest[limit, batch] = max(sizes)
        print(f"data_page_size {limit}, write_batch_size {batch}: {len(sizes)} pages, the largest of {max(sizes)} bytes")
assert largest[1 << 20, None] == largest[1000, None] >= 1024 * ROW, "the behaviour changed"
assert largest[1 << 20, 1] < (1 << 20) + 2 * ROW and largest[1000, 1] < 2 * ROW, "the behaviour changed"
EOF
