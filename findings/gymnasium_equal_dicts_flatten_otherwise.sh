#!/usr/bin/env bash
# gymnasium==1.2.2 (numpy 2.4.6)
#
# Dict({...}) sorts its keys, Dict(name=...) and Dict([...]) keep them as they are given, and == compares the spaces
# whatever their order. flatten() and unflatten() follow the order. So a space that is equal to the one a policy was
# trained with may hand it the same numbers in other places, and no check of the spaces notices: go by the order of the
# space that was saved with the policy, or sort the keys.
#
# Seen: equal True, keys ['by', 'go'] and ['go', 'by'], the same observation flattened to [5, 0] and [0, 5]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check gymnasium==1.2.2 numpy==2.4.6
"$work/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import numpy as np
from gymnasium.spaces import Box, Dict, flatten

go, by = Box(0, 10, (1,)), Box(0, 10, (1,))
sorted_keys, given_keys = Dict({"go": go, "by": by}), Dict(go=go, by=by)
seen = {"go": np.zeros(1, np.float32), "by": np.full(1, 5, np.float32)}
flat = [flatten(space, seen).astype(int).tolist() for space in (sorted_keys, given_keys)]
print("gymnasium", version("gymnasium"))
print(
    f"equal {sorted_keys == given_keys}, keys {list(sorted_keys.spaces)} and {list(given_keys.spaces)}, "
    f"the same observation flattened to {flat[0]} and {flat[1]}"
)
assert sorted_keys == given_keys and flat == [[5, 0], [0, 5]], "the behaviour changed"
EOF
