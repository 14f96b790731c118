"""The methods that carl brings."""

from typing import Any

from carl.methods.code import CODE
from carl.methods.method import Method
from carl.methods.sparse import SPARSE, SPARSE_PROGRESS

BUILT_IN: tuple[Method[Any], ...] = (CODE, SPARSE_PROGRESS, SPARSE)
