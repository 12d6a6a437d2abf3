"""How commands end: interrupts, refusals and errors of the system are a sentence and a code, never a traceback."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from pathpipe.cli import chain_commands
from pathpipe.cli.app import main
from pathpipe.samples import BUNDLED_SLIDE


def ended(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[Any, str]:
    """Exit code and stderr."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code, capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chain_commands, "run_stage", interrupted)
    code, told = ended(capsys, "tile", "runs/first")
    assert code == 130
    assert told == "interrupted: what was finished is kept; the same command goes on from there\n"


@pytest.mark.parametrize(
    ("number", "inside", "expected"),
    [(signal.SIGTERM, False, 130), (signal.SIGTERM, True, 75), (signal.SIGUSR1, False, 75), (signal.SIGINT, True, 130)],
)
def test_a_scheduler_is_told_that_there_is_more_to_do(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    inside: bool,
    expected: int,
) -> None:
    def told(*_: object) -> None:
        try:
            signal.raise_signal(number)
        finally:
            if number != signal.SIGINT:
                signal.raise_signal(number)  # said again while it gives back: heard once

    if inside:
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(chain_commands, "run_stage", told)
    code, _ = ended(capsys, "tile", "runs/first")
    assert code == expected


def test_a_disk_that_fails_is_a_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "runs/first/cohort.csv")

    monkeypatch.setattr(chain_commands, "run_stage", full)
    code, told = ended(capsys, "tile", "runs/first")
    assert code == 2
    assert told == ("error: runs/first/cohort.csv: No space left on device\n\nhint: free some space and run again\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "{file}"], "{file}: is a file, and a run is a folder"),
        (["-o", "{run}", "--reader", "openslyde"], "there is no reader `openslyde`\n\nhint: did you mean `openslide`?"),
        (["-o", "{run}", "--method", "onnx"], "file (option of tissue method `onnx`): is required"),
        (
            ["-o", "{run}", "--method", "clam", "--method-settings", "mthresh=8"],
            "option of tissue method `clam`: mthresh must be odd",
        ),
    ],
)
def test_what_would_fail_every_slide_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], words: str
) -> None:
    places = {"file": tmp_path / "file", "run": tmp_path / "run"}
    places["file"].touch()
    code, told = ended(capsys, "tile", BUNDLED_SLIDE, *(text.format(**places) for text in arguments))
    assert code == 2
    assert told.startswith("error: " + words.format(**places))
    assert not (tmp_path / "run" / "settings.yaml").exists()
