"""Runs hostile programs in ordinary processes, to see what they do where nothing holds them: each has to succeed."""

import json
import os
import signal

import numpy as np

from carl.sandbox.child import SubTaskCode, namespace
from tests.sandbox.canaries import SECRET, Canaries
from tests.sandbox.hostile import ATTACKS


def main() -> None:
    """Print, as JSON, what each attack that should succeed anywhere returned; null if it ended its process."""
    os.environ[SECRET] = "quokka"
    values = {}
    with Canaries() as canaries:
        for attack in ATTACKS:
            if attack.anywhere:
                canaries.reset()
                values[attack.name] = _returned(attack.source(canaries.places))
    print(json.dumps(values))


def _returned(source: str) -> float | None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(source, writer)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return float(said) if said else None


def _answer(source: str, writer: int) -> None:
    signal.alarm(20)
    silent = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(silent, descriptor)
    frame = np.full((8, 8, 3), 7, np.uint8)
    value, _ = SubTaskCode(1, source, namespace()).judge(frame, frame)
    os.write(writer, str(value).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
