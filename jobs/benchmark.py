"""Ray job: run a benchmark and keep its last line, which is JSON, under a URI of pyarrow.fs.

python jobs/benchmark.py NAME URI [arguments of the benchmark ...]
ray job submit --working-dir . -- python jobs/benchmark.py reward_path s3://bucket/benchmarks --only hops
"""

import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from carl.artefacts import write_text
from carl.cli import guarded
from carl.errors import ConfigError
from carl.runs.storage import Storage

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def main() -> None:
    """Run the benchmark of the command line, and store its last line."""
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    name, storage = sys.argv[1], Storage(sys.argv[2])
    if not (script := BENCHMARKS / f"{name}.py").exists():
        there = ", ".join(sorted(path.stem for path in BENCHMARKS.glob("*.py")))
        raise ConfigError(f"there is no benchmark {name!r}; there are {there or 'none: submit with --working-dir .'}")
    storage.try_writing()
    run = subprocess.run([sys.executable, script, *sys.argv[3:]], stdout=subprocess.PIPE, text=True)
    print(run.stdout, end="")
    if run.returncode or not run.stdout:
        raise SystemExit(run.returncode or f"{name} printed nothing")
    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder) / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json", run.stdout.splitlines()[-1] + "\n")
        storage.push(Path(folder))


if __name__ == "__main__":
    sys.exit(guarded(main))
