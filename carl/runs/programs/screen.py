"""What a terminal shows of a program: where it came from, the verdict with its bounds, and the code."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from carl.console.plain import plain
from carl.program import RewardProgram, SubTask
from carl.provenance import Provenance
from carl.runs.programs.compare import differences, episodes, figures
from carl.runs.programs.located import Located
from carl.runs.report.gate import bounded, in_words
from carl.runs.words import by
from carl.verification import VerificationReport


def picture(found: Located) -> RenderableType:
    """A program that was found, with all that is known of it."""
    program, report = found.program, found.report
    parts: list[RenderableType] = [
        Text(plain(f"program {program.id} of {found.where}"), style="bold"),
        *(Text(plain(line)) for line in origin(program.provenance)),
        *verdict(program, report),
        *(Text(plain(line)) for line in approvals(program, report)),
    ]
    for number, subtask in enumerate(program.subtasks, 1):
        parts += ["", _head(program, number, subtask), Syntax(subtask.code, "python", background_color="default")]
    return Group(*parts)


def _head(program: RewardProgram, number: int, subtask: SubTask) -> Text:
    fields = subtask.model_dump(exclude={"name", "description", "code"}, exclude_defaults=True)
    extra = "".join(f", {name} {value}" for name, value in fields.items())
    head = Text(plain(f"{number if program.ordered else '*'} {subtask.name}{extra}"), style="bold")
    if subtask.description and subtask.description != subtask.name:
        head.append(Text("\n" + plain(subtask.description), style="dim"))
    return head


def origin(known: Provenance | None) -> Iterator[str]:
    """Where a program came from, line by line."""
    if known is None:
        yield "where it came from is not recorded"
        return
    asked = [f"the model {known.model}" if known.model else "", f"prompts {', '.join(known.prompts)}"]
    words = [by(known.origin) if known.origin else "", *(asked if known.prompts else asked[:1])]
    words += [f"pictures {known.pictures}"] if known.pictures else []
    words += [f"from {known.parent}"] if known.parent else []
    words += [f"in place of {known.replaced}"] if known.replaced else []
    yield ", ".join(filter(None, words)) if any(words) else "nothing is recorded of who wrote it"
    for name, counts in known.splits.items():
        seeds = f", seeds spawned from {known.seed}" if known.seed is not None else ""
        yield f"episodes, {name}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()) + seeds
    if known.versions:
        yield "versions: " + ", ".join(f"{name} {version}" for name, version in known.versions.items())


def verdict(program: RewardProgram, report: VerificationReport | None) -> Iterator[RenderableType]:
    """The verdict, with a row for each check."""
    if report is None:
        yield Text("not verified", style="bold red")
        return
    ended = "accepted" if report.accepted else "refused"
    seen, *_ = episodes([report])
    style = "bold green" if report.accepted else "bold red"
    yield Text(plain(f"{ended} on {seen} episodes, verdict {report.digest}"), style=style)
    table = Table("check", "sub-task", "outcome", "bound, 95 %", "figures", box=None, header_style="bold")
    for check in report.checks:
        named = "" if check.subtask is None else program.subtasks[check.subtask].name
        said = in_words(check.name, check.figures, check.message) if check.passed else check.message
        outcome = Text("passed", style="green") if check.passed else Text("failed", style="bold red")
        most = bounded(check.name, check.figures)
        table.add_row(check.name.replace("_", " "), Text(plain(named)), outcome, most, Text(plain(said)))
    yield table
    for rule, why in report.unjudged.items():
        yield Text(plain(f"not judged: {rule.replace('_', ' ')}, since {why}"), style="yellow")


def approvals(program: RewardProgram, report: VerificationReport | None) -> Iterator[str]:
    """Who approved it, and whether that still holds."""
    given = program.provenance.approvals if program.provenance else ()
    if not given:
        yield "nobody has approved it"
    for one in given:
        words = f"approved by {one.by} at {one.at}" + (f": {one.note}" if one.note else "")
        if one.program != program.id:
            words += f" (void: it is for a changed source, {one.program})"
        elif report is None or one.verdict != report.digest:
            words += f" (void: the verdict was {one.verdict} then)"
        yield words


def comparison(left: Located, right: Located) -> RenderableType:
    """Two programs side by side: what differs in their code, and in the figures of the gate."""
    changed = differences(left.program, right.program, (left.where, right.where))
    parts: list[RenderableType] = []
    for sign, one in (("-", left), ("+", right)):
        parts.append(Text(plain(f"{sign} program {one.program.id} of {one.where}"), style="bold"))
    parts.append(Syntax(changed, "diff", background_color="default") if changed else Text("The code is the same."))
    table = Table("check", plain(left.where), plain(right.where), box=None, header_style="bold")
    rows = figures(left.report, right.report)
    differing = [row for row in rows if row.differs]
    for row in differing:
        table.add_row(row.name, Text(plain(row.left)), Text(plain(row.right)))
    table.add_row("episodes", *(Text(words or "not verified") for words in episodes([left.report, right.report])))
    alike = len(rows) - len(differing)
    return Group(*parts, table, *([Text(f"Alike in both: {alike} of {len(rows)} checks.")] if rows else []))
