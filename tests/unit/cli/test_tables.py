"""Tables on a terminal: names are shown as they are, and narrow terminals lose no column."""

from __future__ import annotations

import re

import pytest

from pathpipe.cli.tables import print_table


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    print_table(["slide", "tiles", "said"], [["a[red]b", 7, "x " * 60], ["c", 8, None]])
    told = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert any("a[red]b" in line and "7" in line for line in told)
    assert max(map(len, told)) <= 60
