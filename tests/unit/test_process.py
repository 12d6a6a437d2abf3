"""Processes: told from all others, and known to be dead only where that can be known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pathpipe.process import Process, process_alive, process_gone

_SAY = "import json; from pathpipe.process import Process; print(json.dumps(Process.here().to_dict()))"


def _ended() -> Process:
    said = subprocess.run([sys.executable, "-c", _SAY], capture_output=True, text=True, check=True)
    process = Process.from_dict(json.loads(said.stdout))
    assert process is not None
    return process


def test_this_one_lives_and_one_that_ended_is_gone() -> None:
    here, ended = Process.here(), _ended()
    assert (here.pid, here.gone()) == (os.getpid(), False)
    assert ended.pid != here.pid and ended.place == here.place and ended.gone()
    assert Process.from_dict(here.to_dict()) == here


def test_start_is_what_the_system_says() -> None:
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    child = subprocess.Popen([sys.executable, "-c", _SAY + "; input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    process = Process.from_dict(json.loads(child.stdout.readline()))
    assert process is not None and (process.pid, process.gone()) == (child.pid, False)
    assert abs(process.started / os.sysconf("SC_CLK_TCK") - uptime_s) < 2
    child.communicate(b"\n")
    assert process.gone()


def test_a_number_given_again_is_another_process() -> None:
    here = Process.here()
    assert replace(here, started=here.started - 1).gone(), "the process that had our number before us"
    assert not replace(here, started=0).gone(), "a system that doesn't say when it was started"


@pytest.mark.parametrize("other", [{"boot": "another kernel"}, {"space": "pid:[1]"}])
def test_a_process_of_another_machine_or_container_is_never_known_to_be_dead(other: dict[str, str]) -> None:
    """Though the host has the same name, and no process here has that number."""
    record = {**_ended().to_dict(), **other}
    elsewhere = Process.from_dict(record)
    assert elsewhere is not None and not elsewhere.gone()
    assert replace(_ended(), host="renamed meanwhile").gone()


def test_without_a_boot_the_name_of_the_host_must_do(monkeypatch: pytest.MonkeyPatch) -> None:
    here = replace(Process.here(), boot="", space="")
    monkeypatch.setattr(Process, "here", staticmethod(lambda: here))
    assert replace(here, pid=2**22 + 1).gone()
    assert not replace(here, pid=2**22 + 1, host="another").gone()


def test_a_zombie_holds_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 20
    while not process_gone(child.pid, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, 0)  # it has its number still, since nobody waited for it
    assert process_gone(child.pid, 0)
    child.wait()


def test_processes_of_other_users_are_alive() -> None:
    assert process_alive(1)


@pytest.mark.parametrize(
    "record",
    [{}, {"host": "h", "pid": 1}, {"host": "h", "boot": "", "space": "", "pid": "1", "started": 0}]
    + [{"host": "h", "boot": "", "space": "", "pid": pid, "started": 0} for pid in (-1, 0, True, 1.5, None)],
)
def test_other_records_say_nothing(record: dict[str, object]) -> None:
    assert Process.from_dict(record) is None
