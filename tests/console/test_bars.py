"""Progress bars on a terminal of 80 columns, and the log that stands for them where there is none."""

import re

import pytest

from carl.commands import output
from carl.commands.output import bars
from carl.console.progress import LINES


def test_a_long_label_breaks_and_the_times_do_not(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv(LINES, raising=False)
    with bars() as progress:
        progress("expert episodes: up to 1.17 GB of frames, 53.5 MB on disk", 1, 1)
        progress("training (code)", 1, 1)
    said = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capfd.readouterr().err)
    drawn = said[said.rindex("expert episodes") :]
    assert len(re.findall(r"100% \d:\d\d:\d\d \d:\d\d:\d\d", drawn)) == 2
    assert "…" not in said


def test_a_log_has_a_line_as_work_begins_now_and_then_and_as_it_ends(monkeypatch: pytest.MonkeyPatch, capfd):
    for name in (LINES, "CARL_LOG", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    now = iter([0.0, 1.0, 31.0, 32.0, 33.0])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(now))
    with bars() as progress:
        for done in (0, 10, 50, 90, 100):
            progress("training (code)", done, 100)
            assert capfd.readouterr().err.count("\n") == (done in (0, 50, 100)), "at once, not at the end"
