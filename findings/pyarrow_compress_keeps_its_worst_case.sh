#!/usr/bin/env bash
# pyarrow==26.0.1 (numpy 2.4.6)
#
# The Buffer that pa.compress() returns keeps the allocation that it was compressed into, as large as the codec's worst
# case and so larger than the input; only its `size` is cut to the result's. Keeping such buffers takes more memory than
# keeping the data uncompressed, and their `size` does not show it. One would expect them to take about their size. With
# asbytes=True the result is copied to bytes of its own length, and nothing is kept beside them.
#
# Seen: 8 x 16777216 bytes, lz4: 553056 compressed; allocated 134226432 by buffers, 0 beside bytes
#       8 x 16777216 bytes, zstd: 4248 compressed; allocated 134742016 by buffers, 0 beside bytes
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check pyarrow==26.0.1 numpy==2.4.6
"$work/venv/bin/python" - <<'EOF'
import numpy as np
import pyarrow as pa

COUNT = 8
data = np.zeros(16 << 20, np.uint8)


def keep(codec, asbytes):
    """Bytes that the results have, and bytes that Arrow has allocated while they are kept."""
    before = pa.total_allocated_bytes()
    kept = [pa.compress(data, codec=codec, asbytes=asbytes) for _ in range(COUNT)]
    return sum(map(len, kept)), pa.total_allocated_bytes() - before


print("pyarrow", pa.__version__)
for codec in ("lz4", "zstd"):
    size, allocated = keep(codec, asbytes=False)
    length, beside = keep(codec, asbytes=True)
    print(f"{COUNT} x {data.nbytes} bytes, {codec}: {size} compressed; allocated {allocated} by buffers, {beside} beside bytes")
    assert size == length and allocated > COUNT * data.nbytes and beside == 0, "the behaviour changed"
EOF
