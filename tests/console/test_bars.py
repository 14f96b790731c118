"""Progress bars on a terminal of 80 columns."""

import re

import pytest

from carl.commands.output import bars
from carl.console.progress import LINES


def test_a_long_label_breaks_and_the_times_do_not(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv(LINES, raising=False)
    with bars() as progress:
        progress("expert episodes: up to 1.17 GB of frames, 53.5 MB on disk", 1, 1)
        progress("training (code)", 1, 1)
    said = capfd.readouterr().err
    assert len(re.findall(r"100% \d:\d\d:\d\d \d:\d\d:\d\d", said)) == 2
    assert "…" not in said
