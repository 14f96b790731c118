"""What a terminal is shown of names and messages: their letters, and nothing that steers it."""

from io import StringIO

import pytest
from rich.table import Table

from carl.cli import bars
from carl.console.plain import plain, visible
from carl.console.terminal import Terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("take the key", "take the key"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07door", "door"),
        ("\x1b]8;;http://x\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("\x9b2Jgone", "gone"),
        ("a\x1bcb", "ab"),
        ("over\u202ewritten\u2066", "overwritten"),
        ("a\r\n\tb\x00\x07\x7f", "a b"),
        ("a\rb", "a b"),
        ("sch\u00f6n \u92f4 \U0001f600", "sch\u00f6n \u92f4 \U0001f600"),
        ("half \ud83d", "half"),
    ],
)
def test_what_is_left_of_a_name(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert plain(text).isprintable()


def test_lines_stay_lines_where_they_may() -> None:
    assert visible("a\r\nb\rc\t\x1b[1md") == "a\nb\nc\td"


def test_markup_is_text_on_a_terminal() -> None:
    file = StringIO()
    terminal = Terminal(file=file, width=80, force_terminal=True, color_system="standard")
    table = Table("name")
    table.add_row("[/] [red]a\x1b[2J")
    terminal.print(table)
    terminal.print("[/b] :smile: \x9b2J", style="bold", highlight=False)
    shown = file.getvalue()
    assert "[/] [red]a" in shown
    assert "[/b] :smile:" in shown
    assert "2J" not in shown
    assert "\x1b[1m" in shown, "styles of our own stay"


def test_a_label_of_progress_is_text(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CARL_PROGRESS_LINES", "CARL_LOG"):
        monkeypatch.delenv(name, raising=False)
    with bars() as progress:
        progress("training [/] [red]x", 1, 1)
    assert "training [/] [red]x" in capfd.readouterr().err
