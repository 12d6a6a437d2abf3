"""An element of a Slurm array: its attempts are on record; it goes back into the queue when told, not for ever."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from pathpipe.errors import ExitCode
from pathpipe.execution.element import MOST_ATTEMPTS, Attempt, Element, read_attempts, refuse_requeue

SLURM = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `scontrol` was called with, one line a call."""
    log, fake = tmp_path / "asked", tmp_path / "scontrol"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return log


def _begun(record: Path) -> Element:
    element = Element.begun({"PATHPIPE_ELEMENT": str(record), **SLURM})
    assert element is not None
    return element


def test_a_command_of_everyday_is_no_element() -> None:
    assert Element.begun(SLURM) is None


def test_attempts_are_on_record(tmp_path: Path) -> None:
    record = tmp_path / "elements" / "extract-3.json"
    element = _begun(record)
    (begun,) = json.loads(record.read_text())["attempts"]
    assert {name: begun[name] for name in ("job", "host", "pid", "ended", "code", "told")} == {
        "job": "7",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "ended": None,
        "code": None,
        "told": None,
    }
    assert element.ended(ExitCode.PREEMPTED, signal.SIGTERM) == 75
    assert _begun(record).ended(ExitCode.DONE, None) == 0
    first, second = read_attempts(record)
    assert (first.code, first.told, second.code, second.told) == (75, "SIGTERM", 0, None)
    assert second.ended is not None and first.started <= second.started <= second.ended


@pytest.mark.parametrize(
    ("code", "told", "exits", "requeues"),
    [
        (ExitCode.DONE, None, 0, False),
        (ExitCode.SOME_FAILED, None, 0, False),  # `afterok`: every unit had its turn
        (ExitCode.BAD_REQUEST, None, 2, False),
        (ExitCode.REFUSED, None, 4, False),
        (ExitCode.PREEMPTED, signal.SIGTERM, 75, False),  # Slurm requeues what it preempts itself
        (ExitCode.PREEMPTED, signal.SIGUSR1, 75, True),
        (ExitCode.DONE, signal.SIGUSR1, 0, False),  # it came to its end all the same
    ],
)
def test_what_slurm_is_told(
    tmp_path: Path, asked: Path, code: ExitCode, told: int | None, exits: int, requeues: bool
) -> None:
    record = tmp_path / "e.json"
    assert _begun(record).ended(code, told) == exits
    assert read_attempts(record)[0].code == code
    assert asked.exists() == requeues
    if requeues:
        assert asked.read_text() == "requeue 7_3\n"


def test_it_does_not_go_round_for_ever() -> None:
    long = [Attempt("7", "n1", 1, 1000.0 * number, 1000.0 * number + 900) for number in range(MOST_ATTEMPTS)]
    short = [Attempt("7", "n1", 1, 1000.0 * number, 1000.0 * number + 59) for number in range(3)]
    assert refuse_requeue(long[:-1]) is None
    assert refuse_requeue(long) == "it has been started 50 times"
    assert refuse_requeue(short[:2]) is None and refuse_requeue([*short[:2], long[0]]) is None
    assert "time limit leaves less than 60 s" in (refuse_requeue([long[0], *short]) or "")


def test_a_damaged_record_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text('{"attempts": [{"job"')
    assert read_attempts(tmp_path / "e.json") == [] == read_attempts(tmp_path / "absent.json")
