"""A sweep: runs that differ in a few settings and in their seed, by Ray Tune, and what they found side by side.

Every trial is a run directory of its own, so a sweep that was stopped goes on. A program is made once for each task,
seed and way of making it; what differs after that begins with a copy.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback

from carl.artefacts import CONFIG, RESULT
from carl.cluster.logs import quiet
from carl.cluster.session import here, ray_running
from carl.config import RunConfig, below
from carl.console.progress import Progress, silent
from carl.errors import CarlError, ResourceError
from carl.methods import Stage, method_of, run_config
from carl.runs.grid import SweepConfig, Trial
from carl.runs.holding import held
from carl.runs.pipeline import Pipeline
from carl.runs.report.sweep import COMPARISON, write_sweep
from carl.runs.resolve import resolved
from carl.runs.stages import made
from carl.runs.storage import Storage
from carl.tasks import get_task

_ray: Any = ray  # Ray leaves these untyped
_Reporter: Any = TrialProgressCallback

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
"""Environment variables for Tune: print nothing, write no tables, leave Ctrl-C alone."""

RETRIES = 2
"""Times that a trial is begun again when it lacks resources or its process dies; it goes on where it was."""


def run_sweep(sweep: SweepConfig, progress: Progress = silent) -> list[dict[str, Any]]:
    """Run all trials, and write a table and a page to ``comparison/``; returns a row for each setting.

    The row of a trial that fails has its error. Raises ConfigError if a directory holds another run.
    """
    with held(sweep.path), ray_running(progress):
        failed = _make_programs(sweep, progress)
        failed |= _tune(sweep, [trial for trial in sweep.trials() if trial.config.run_dir not in failed], progress)
    rows = write_sweep(sweep, failed)
    if sweep.storage:
        Storage(below(sweep.storage, COMPARISON)).push(sweep.path / COMPARISON)
    return rows


def _make_programs(sweep: SweepConfig, progress: Progress) -> dict[Path, str]:
    """Give every trial that learns from code its verified program; returns what failed, by run directory."""
    failed: dict[Path, str] = {}
    for trial in sweep.trials():
        config = trial.config
        try:
            config = resolved(config, get_task(config.task))
            before = method_of(config.reward.method).stages
            if not before:
                continue
            made = _made_by(config, before, sweep.path / "programs")
            if config.storage:
                with held(config.directory):
                    Storage(config.storage).pull(config.directory)
            if (config.directory / CONFIG).exists():
                continue
            Pipeline(made, progress).run(tuple(stage.name for stage in before))
        except CarlError as error:
            failed[config.directory] = f"{type(error).__name__}: {error}"
            continue
        draft = config.directory.with_name(f"{config.directory.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(made.directory, draft)
        draft.rename(config.directory)
    return failed


def _made_by(config: RunConfig, stages: Sequence[Stage[Any]], folder: Path) -> RunConfig:
    """The run in ``folder`` that does the stages before training for all trials in which the same follows from them."""
    sections = {name.partition(".")[0] for stage in stages for name in stage.settles}
    settled = config.model_dump(mode="json", include={"task", "seed", *sections})
    digest = hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()[:8]
    method = {"reward": {"method": config.reward.method}}
    return run_config(settled | method | {"run_dir": folder / f"seed-{config.seed}-{digest}"})


def _tune(sweep: SweepConfig, trials: Sequence[Trial], progress: Progress) -> dict[Path, str]:
    """Run the trials that are not done; returns what failed, by run directory."""
    todo = [trial.config for trial in trials if not _done(trial.config)]
    counter = _Counter(progress, len(trials) - len(todo), len(trials))
    if not todo:
        return {}
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    results = tune.Tuner(
        tune.with_resources(_trial, {"CPU": 0, "memory": 1}),
        param_space={"config": tune.grid_search(todo), "here": here()},
        tune_config=tune.TuneConfig(max_concurrent_trials=sweep.max_concurrent, reuse_actors=True),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(sweep.path.resolve()),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[counter],
            verbose=0,
        ),
    ).fit()
    return dict(_failures(results))


def _done(config: RunConfig) -> bool:
    """Whether a trial has its result, and the copy of it."""
    try:
        if made("evaluate", config.directory, config) is None:
            return False
    except CarlError:  # the trial raises it again
        return False
    return not config.storage or Storage(config.storage).read(RESULT) is not None


class _Counter(_Reporter):  # type: ignore[misc]
    """Reports how many trials have ended, in place of Tune's own reporter."""

    def __init__(self, progress: Progress, done: int, total: int) -> None:
        super().__init__()
        self._progress, self._done, self._total = progress, done, total
        progress("trials", done, total)

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        self._done += 1
        self._progress("trials", self._done, self._total)

    on_trial_error = on_trial_complete

    def log_result(self, *_: Any, **__: Any) -> None:
        """Nothing: what a trial found is in its run directory."""

    def __reduce__(self) -> Any:
        """Tune writes a copy to disk, from which nothing is ever begun."""
        return _Counter, (silent, self._done, self._total)


def _trial(given: Mapping[str, Any]) -> None:
    """What Tune starts. It reserves nothing: the run begins outside Tune's placement group, on the node where its
    directory is, and its processes are placed wherever there is room.
    """
    run = _ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=given["here"])(_run)
    tune.report({"failed": ray.get(run.remote(given["config"]))})


def _run(config: RunConfig) -> str | None:
    """Run a trial in a process of its own; returns what went wrong, unless it may go better the next time."""
    quiet()
    try:
        Pipeline(config).run()
    except ResourceError:
        raise
    except CarlError as error:
        return f"{type(error).__name__}: {error}"
    return None


def _failures(results: Any) -> Iterator[tuple[Path, str]]:
    for result in results:
        path = result.config["config"].directory
        if result.error:
            yield path, str(result.error).strip().splitlines()[-1]
        elif failed := (result.metrics or {}).get("failed", "not finished"):
            yield path, failed
