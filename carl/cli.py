"""The command ``carl``. Everything heavy is imported by the stage that needs it."""

import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from carl import __version__
from carl.artefacts import PROGRAM, RESULT, whole
from carl.cluster.logs import quiet, structured
from carl.commands.output import bars, console, errors
from carl.commands.program import diff, programs
from carl.config import EMBEDDED_MODEL, RunConfig
from carl.console.terminal import Terminal
from carl.errors import CarlError, ConfigError, ResourceError, missing
from carl.runs.settings import settings, sweep_of, work_of
from carl.runs.stages import BUILT_IN, ORDER
from carl.training.abstains import EXIT_STATUS

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train agents on rewards that a vision-language model wrote as code.",
)
app.add_typer(programs, name="program")
app.command("diff")(diff)
_log = logging.getLogger(__name__)

TaskName = Annotated[str, typer.Argument(help="A task of `carl tasks`, or module:attribute for your own.")]
TaskOrRun = Annotated[
    str,
    typer.Argument(
        metavar="TASK", help="A task of `carl tasks`, module:attribute for your own, or the directory of a run."
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of the run.", show_default="0")]
RunName = Annotated[str, typer.Argument(help="Directory of a run, or the URI of its storage.")]
RunDir = Annotated[Path | None, typer.Option(help="Where artefacts go.", show_default="runs/<task>-<seed>")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with a run's configuration.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, as section.field=value; may be given several times.")
]


def run_stages(config: RunConfig, stages: tuple[str, ...] | None = None) -> None:
    """Run ``stages`` (all of them by default) under progress bars, and print what the run has found.

    Raises typer.Exit: 130 after Ctrl-C, and EXIT_STATUS of ``carl.training.abstains`` where the reward is not to be
    trusted: it could too often not judge, or an alarm of the watch stands.
    """
    from carl.runs.pipeline import Pipeline
    from carl.runs.screen import summary
    from carl.runs.watch import replaced

    try:
        with bars() as progress:
            pipeline = Pipeline(config, progress)
            result = pipeline.run(stages)
    except KeyboardInterrupt:
        errors.print("Stopped. The same command continues from here.")
        raise typer.Exit(130) from None
    if result is not None:
        with whole(str(config.directory / RESULT)):
            console.print(summary(result))
        for sentence in replaced(str(config.directory)):
            errors.print(sentence, style="bold red", highlight=False)
    elif "synthesize" in (stages or ()) and (config.directory / PROGRAM).exists():
        console.print(_found(config.directory), highlight=False)
    console.print(f"Everything of this run is in {config.directory}")
    if pipeline.doubts and {"train", "evaluate"} & set(stages or ORDER):
        if result is None:  # its summary would say so
            errors.print(*pipeline.doubts, sep="\n", style="bold red", markup=False, highlight=False)
        raise typer.Exit(EXIT_STATUS)


def _found(directory: Path) -> str:
    """Which program a search found, how to read it, and what the episodes that it was judged on leave open."""
    from carl.runs.programs.located import located
    from carl.runs.words import named

    found = located(str(directory))
    open_ = f"\n{found.report.left_open[:1].upper()}{found.report.left_open[1:]}." if found.report else ""
    return f"{named(found.program, str(directory))}{open_}"


def run_config(arguments: list[str], usage: str, stages: tuple[str, ...] | None = None) -> None:
    """Run ``stages`` for an entry point in jobs/: of a file and settings; without a file, exit with ``usage``."""
    if not arguments or arguments[0] in ("-h", "--help"):
        raise SystemExit(usage)
    path, *sets = arguments
    run_stages(settings(None, None, None, Path(path), sets), stages)


def _say_version(wanted: bool) -> None:
    if wanted:
        console.print(f"carl {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def _add_command(name: str, text: str, stages: tuple[str, ...] | None = None) -> None:
    def command(
        task: TaskOrRun,
        seed: Seed = None,
        run_dir: RunDir = None,
        config: ConfigFile = None,
        set_: Settings = None,
    ) -> None:
        run_stages(settings(task, seed, run_dir, config, set_ or []), stages)

    app.command(name, help=text)(command)


_add_command(
    "run", "Run all stages, from pictures to a trained policy. Stop it anywhere; the same command continues it."
)
for stage in BUILT_IN:
    _add_command(stage.name, stage.help, (stage.name,))


@app.command()
def tasks() -> None:
    """List the tasks."""
    from carl.runs.resolve import by_default
    from carl.tasks import tasks as all_tasks

    table = Table("task", "algorithm", "steps", "in words", box=None, header_style="bold")
    for task in all_tasks().values():
        train = by_default(task, RunConfig).train
        table.add_row(task.name, train.algorithm.upper(), f"{train.env_steps:,}", task.description)
    console.print(table)


@app.command()
def show(run: RunName) -> None:
    """Print how far a run is, or what it has found."""
    from carl.runs.screen import picture
    from carl.runs.watch import look

    console.print(picture(look(run)))


@app.command()
def watch(run: RunName, once: Annotated[bool, typer.Option("--once", help="As carl show.")] = False) -> None:
    """Show how far a run is, again and again until it is through; Ctrl-C ends the watching, not the run.

    If the run failed, or gives no sign of life, the command ends with exit status 1. Where the output is not a
    terminal, the run is shown once.
    """
    from carl.runs.screen import picture
    from carl.runs.watch import follow, look

    if once or not console.is_terminal:
        glance = look(run)
        console.print(picture(glance))
        raise typer.Exit(glance.given_up)
    # A console of its own, which folds long lines: in a live display they would be cut.
    with suppress(KeyboardInterrupt), Live(console=Terminal(soft_wrap=False), auto_refresh=False) as live:
        for glance in follow(run):
            live.update(picture(glance), refresh=True)
        raise typer.Exit(not glance.over)


@app.command("sweep")
def run_sweep(
    config: Annotated[Path, typer.Argument(help="YAML file with a sweep, such as jobs/sweep.yaml.")],
    set_: Settings = None,
) -> None:
    """Run what a sweep lists, and compare. Stop it anywhere; the same command continues it."""
    from carl.runs import sweep
    from carl.runs.report.sweep import COMPARISON, INTERVAL, rate_of, wrong

    plan = sweep_of(config, set_ or [])
    try:
        with bars() as progress:
            rows = sweep.run_sweep(plan, progress)
    except KeyboardInterrupt:
        errors.print("Stopped. The same command continues from here.")
        raise typer.Exit(130) from None
    table = Table("setting", "success", "seeds", "failed", box=None, header_style="bold")
    for row in rows:
        table.add_row(row["setting"], rate_of(row), str(len(row["seeds"])), "\n".join(wrong(row)))
    console.print(
        f"{plan.base.task}; in brackets the {INTERVAL}",
        table,
        f"The plot is {plan.path / COMPARISON / 'sweep.html'}",
        sep="\n",
    )
    if any(row["failed"] for row in rows):
        raise typer.Exit(1)
    if any(row["doubtful"] for row in rows):
        raise typer.Exit(EXIT_STATUS)


@app.command()
def submit(
    config: Annotated[Path | None, typer.Argument(help="YAML file with a run or a sweep.")] = None,
    address: Annotated[
        str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="URL of the cluster's dashboard.")
    ] = "http://127.0.0.1:8265",
    set_: Settings = None,
    follow: Annotated[str | None, typer.Option(metavar="JOB", help="Follow a job that was submitted before.")] = None,
    stop: Annotated[str | None, typer.Option(metavar="JOB", help="Stop a job.")] = None,
) -> None:
    """Run a configuration or a sweep as a Ray job, follow it and fetch what it makes. Ctrl-C leaves the job running."""
    from carl.runs.submit import clearly, connect, fetch, send, watch

    if stop:
        with clearly(address):
            connect(address).stop_job(stop)
        console.print(f"Job {stop} is being stopped. Submitted again, its work goes on from there.")
        return
    if follow:
        client, job = connect(address), follow
        with clearly(address):
            client.get_job_info(job)
    elif config:
        client, job = send(work_of(config, set_ or []), address)
        console.print(f"Job {job}. `carl submit --stop {job}` stops it, --follow comes back to it.")
    else:
        raise ConfigError("nothing to submit: give a configuration, such as jobs/demo.yaml, or --follow JOB")
    try:
        with bars() as progress:
            code = watch(client, job, progress, lambda line: console.print(line, highlight=False))
    except KeyboardInterrupt:
        errors.print(f"The job goes on. `carl submit --follow {job}` comes back to it, --stop {job} stops it.")
        raise typer.Exit(130) from None
    try:
        directory = fetch(client, job)
    except CarlError as error:
        errors.print(f"What the job made could not be fetched: {error}", highlight=False)
    else:
        if directory:
            console.print(f"Everything of this job is in {directory}")
        elif not code:
            raise ResourceError("the job left nothing here: is its storage one that this machine reaches?")
    if code:
        raise typer.Exit(code)


@app.command()
def record(
    task: TaskName,
    to: Annotated[
        str | None, typer.Option(help="Folder or URI of the store.", show_default="demonstrations/<task>")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="How many successes to keep.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The episodes' seeds are spawned from it.")] = 0,
    policy: Annotated[
        Path | None, typer.Option(metavar="RUN_DIR", help="The policy of this run plays, not the task's expert.")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="You play, with the keys of this terminal.")] = False,
    append: Annotated[bool, typer.Option("--append", help="Add to the demonstrations that are there.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the demonstrations that are there.")] = False,
    max_failed: Annotated[float, typer.Option(min=0, max=0.99, help="Largest share of episodes that may fail.")] = 0.5,
) -> None:
    """Keep successful episodes of the task's expert, of a policy or of yourself as demonstrations."""
    from carl.episodes.record import Existing, Recorder, by
    from carl.episodes.record import record as keep
    from carl.tasks import get_task

    if (policy and keys) or (append and replace):
        raise ConfigError("give --policy or --keys, and --append or --replace, not both")
    existing: Existing = "append" if append else "replace" if replace else "refuse"
    found, place = get_task(task), to or f"demonstrations/{task.replace(':', '.')}"
    role = "policy" if policy else "person" if keys else "expert"
    with ExitStack() as stack:
        recorder = stack.enter_context(Recorder(found, place, existing, role))
        if keys:
            from carl.episodes.keyboard import Keyboard, Player

            keep(recorder, by(Player(found, stack.enter_context(Keyboard()))), episodes, seed, None)
        elif policy:
            from carl.runs.player import policy_of

            play = stack.enter_context(policy_of(policy.expanduser(), recorder))
            keep(recorder, play, episodes, seed, max_failed, stack.enter_context(bars()))
        elif found.expert:
            keep(recorder, by(found.expert), episodes, seed, max_failed, stack.enter_context(bars()))
        else:
            raise ConfigError(f"task {task!r} has no expert to record: give --policy or --keys")
    console.print(
        f"Episodes kept: {recorder.kept}; failed and left out: {recorder.failed}. For a Task to name: "
        f"Task(..., demonstrations={place!r})",
        markup=False,
        highlight=False,
    )


@app.command()
def serve(
    model: Annotated[str, typer.Option(help="A Hugging Face name or a folder.")] = EMBEDDED_MODEL,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    token_env: Annotated[str | None, typer.Option(help="Environment variable that holds the bearer token.")] = None,
) -> None:
    """Serve a VLM behind OpenAI's chat completions until Ctrl-C."""
    from carl.serving.local import serve_forever

    console.print(f"Loading {model} ...")
    serve_forever(
        model, host, port, token_env, on_ready=lambda url: console.print(f"Serving at {url} (Ctrl-C ends it)")
    )


def main() -> None:
    """Entry point: errors that a user can act on are a line, not a traceback."""
    sys.exit(guarded(app))


def guarded(command: Callable[[], Any]) -> int:
    """Run a command; returns its exit status."""
    quiet()
    try:
        _check_platform()
        command()
    except CarlError as error:
        if structured():
            _log.error("%s: %s", type(error).__name__, error)
            return 1
        errors.print(f"{type(error).__name__}: ", style="bold red", end="")
        errors.print(str(error), highlight=False)
        return 1
    except ModuleNotFoundError as error:
        errors.print(missing(error), highlight=False)
        return 1
    except typer.Exit as error:  # of a command that typer does not run, as in jobs/
        return error.exit_code
    return 0


def _check_platform() -> None:
    if not sys.platform.startswith("linux"):
        raise ConfigError(
            f"carl runs on Linux, and this is {sys.platform}: generated code is boxed in with what Linux offers. "
            "A container or WSL 2 will do."
        )
