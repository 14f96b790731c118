"""``carl program``: what a person does with the program of a run."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carl.commands.output import bars, console, errors, page
from carl.errors import ConfigError, command

if TYPE_CHECKING:
    from carl.config import RunConfig
    from carl.runs.programs.located import Located

programs = typer.Typer(no_args_is_help=True, help="Read, edit, judge and approve a reward program by hand.")

Place = Annotated[
    str,
    typer.Argument(metavar="RUN_OR_FILE", help="A run or its URI, a program's file, or an exported folder."),
]
Other = Annotated[str, typer.Argument(metavar="RUN_OR_FILE", help="The one to compare with.")]


@programs.command()
def show(program: Place) -> None:
    """Print a program: its code, the verdict with its bounds, where it came from, and who approved it."""
    from carl.runs.programs.located import located
    from carl.runs.programs.screen import picture

    page(picture(located(program)))


@programs.command()
def diff(left: Place, right: Other) -> None:
    """Show how two programs differ: their code, and the gate's figures side by side."""
    from carl.runs.programs.located import located
    from carl.runs.programs.screen import comparison

    page(comparison(located(left), located(right)))


@programs.command()
def export(program: Place, folder: Annotated[Path, typer.Argument(help="A new folder.")]) -> None:
    """Write a program as .py files, one for each sub-task, to be edited."""
    from carl.runs.programs.folder import write_folder
    from carl.runs.programs.located import located

    for path in write_folder(located(program).program, folder.expanduser()):
        console.print(str(path), highlight=False)
    console.print(f"Edit them; then `carl program import {folder} {program}` brings them back.", highlight=False)


@programs.command("import")
def bring(
    source: Annotated[str, typer.Argument(metavar="FOLDER", help="An exported folder; a program's file; a run.")],
    target: Annotated[Path, typer.Argument(metavar="RUN_OR_FILE", help="Directory of a run, or a new .json file.")],
) -> None:
    """Make an edited program that of a run; `carl run` then judges it by the same gate, and trains on it."""
    from carl.runs.programs.desk import put, trained_on_others
    from carl.runs.programs.located import located

    program, target = located(source).program, target.expanduser()
    if not put(program, target):
        console.print(f"{target} holds the program {program.id} already", highlight=False)
        return
    then = "" if target.suffix == ".json" else f"; {command('program verify', target)} judges it"
    console.print(f"{target} holds the program {program.id} now{then}", highlight=False)
    for folder in trained_on_others(program, target.parent if target.suffix == ".json" else target):
        errors.print(
            f"{folder} holds a training with the program that was there before: delete it to train on this one, or "
            "import this one into another run",
            highlight=False,
        )


@programs.command()
def verify(
    program: Place,
    task: Annotated[str | None, typer.Option(help="Judge it on the episodes of runs/TASK-0, which may be new.")] = None,
    run: Annotated[Path | None, typer.Option(help="Judge it on the episodes of this run.")] = None,
) -> None:
    """Judge a program by the gate.

    That of a run is judged on held-out episodes, as by `carl verify`. With --task or --run any program is judged on the
    episodes that candidates are judged on there, as often as you like; nothing is written, and the exit status is 1 if
    it is refused.
    """
    from carl.runs.programs.judge import of_record, on_episodes_of
    from carl.runs.programs.located import Located, located
    from carl.runs.programs.screen import picture

    found = located(program)
    with bars() as progress:
        if task or run:
            report = on_episodes_of(_config(task, run), found.program, progress)
        else:
            report = of_record(found, progress)
    page(picture(Located(found.where, found.program, report)))
    raise typer.Exit(not report.accepted)


def _config(task: str | None, run: Path | None) -> "RunConfig":
    from carl.runs.directory import read_config
    from carl.runs.settings import settings

    if task and run:
        raise ConfigError("give --task or --run, not both")
    return read_config(run.expanduser()) if run else settings(task, None, None, None, [])


@programs.command()
def approve(
    program: Place,
    by: Annotated[str | None, typer.Option(help="Who approves it.", show_default="the user's name")] = None,
    note: Annotated[str, typer.Option(help="A remark to keep with it.")] = "",
) -> None:
    """Approve the verified program of a run: with verify.require_approval it trains on nothing else."""
    from carl.runs.programs.desk import approve as note_approval
    from carl.runs.programs.located import located

    found: Located = located(program)
    approval = note_approval(found, by or _user(), note)
    console.print(f"{approval.by} approved the program {found.program.id}, verdict {approval.verdict}", highlight=False)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # no entry for this user, as in some containers
        raise ConfigError("nobody knows who you are here: give --by NAME") from error
