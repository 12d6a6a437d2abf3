"""Leases among machines: skewed clocks, dead and paused owners, containers, full and read-only disks."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pathpipe import lease as lease_module
from pathpipe import lease_file, publish
from pathpipe.errors import LeaseLostError
from pathpipe.lease import Lease, is_free, looks_dead, release_of
from pathpipe.process import Process
from pathpipe.publish import partial_path

FAR = Process("far-away", "another boot", "pid:[7]", 4711, 99)
LASTS_S = 300.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """This machine's stopwatch; `time.time`, which may be minutes off, is never asked."""
    fake = SimpleNamespace(now=1000.0)
    fake.monotonic = lambda: fake.now
    monkeypatch.setattr(lease_module, "time", fake)
    monkeypatch.setattr(time, "time", lambda: pytest.fail("the clock of this machine says nothing"))
    return fake


def _foreign(path: Path, owner: Process = FAR, dated_s: float = 0.0, **more: Any) -> None:
    """A lease of another machine, whose clock, or that of the file system, differs by `dated_s` from ours."""
    path.write_text(json.dumps({**owner.to_dict(), "token": "theirs", **more}) + "\n")
    _date(path, dated_s)


def _date(path: Path, dated_s: float) -> None:
    now = publish.now_on(path.parent) + dated_s
    os.utime(path, (now, now))


def _have(path: Path) -> bool:
    lease = Lease.acquire(path, lasts_s=LASTS_S)
    if lease is not None:
        lease.release()
        assert list(path.parent.iterdir()) == []
    return lease is not None


@pytest.mark.parametrize("skew_s", [0.0, -120.0, 600.0])
def test_a_dead_machine_is_taken_over_when_it_was_silent_long_enough(
    tmp_path: Path, clock: SimpleNamespace, skew_s: float
) -> None:
    _foreign(tmp_path / "S1", dated_s=skew_s)
    assert not _have(tmp_path / "S1")
    clock.now += LASTS_S - 1
    assert not _have(tmp_path / "S1")
    clock.now += 2
    assert _have(tmp_path / "S1")


def test_one_that_is_long_dead_by_its_date_is_watched_for_a_third_of_that(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    _foreign(tmp_path / "S1", dated_s=-LASTS_S - 1)
    assert looks_dead(tmp_path / "S1", LASTS_S) and not _have(tmp_path / "S1")
    clock.now += LASTS_S / 3 - 1
    assert not _have(tmp_path / "S1")
    clock.now += 2
    assert _have(tmp_path / "S1")


@pytest.mark.parametrize("skew_s", [-3600.0, -600.0, 0.0, 600.0])
def test_a_living_owner_with_a_wrong_clock_keeps_it(tmp_path: Path, clock: SimpleNamespace, skew_s: float) -> None:
    """Lustre dates files by the clock of who touches them: an hour behind, a touch a second ago looks an hour old."""
    _foreign(tmp_path / "S1")
    for beat in range(40):
        _date(tmp_path / "S1", skew_s + beat)
        for _ in range(3):
            assert not _have(tmp_path / "S1")
            clock.now += LASTS_S / 30
    assert looks_dead(tmp_path / "S1", LASTS_S) == (skew_s < -LASTS_S)


def test_an_owner_says_itself_how_long_it_may_be_silent(tmp_path: Path, clock: SimpleNamespace) -> None:
    _foreign(tmp_path / "S1", lasts_s=3000)
    assert not _have(tmp_path / "S1")
    clock.now += 2999
    assert not _have(tmp_path / "S1")
    clock.now += 2
    assert _have(tmp_path / "S1")


@pytest.mark.parametrize("other", [{"boot": "of its own kernel"}, {"space": "pid:[of its container]"}])
def test_a_container_with_our_host_name_is_alive(tmp_path: Path, clock: SimpleNamespace, other: dict[str, str]) -> None:
    """Its process has a number that nobody has here."""
    elsewhere = Process.from_dict({**Process.here().to_dict(), "pid": 2**22 + 1, **other})
    assert elsewhere is not None
    _foreign(tmp_path / "S1", elsewhere)
    assert not _have(tmp_path / "S1")
    _foreign(tmp_path / "S2", replace(Process.here(), pid=2**22 + 1))
    lease = Lease.acquire(tmp_path / "S2")
    assert lease is not None, "that one is known to be dead"
    lease.release()


def test_a_number_given_again_does_not_keep_a_lease(tmp_path: Path) -> None:
    _foreign(tmp_path / "S1", replace(Process.here(), pid=1, started=1))
    assert _have(tmp_path / "S1")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"host": "h", "pi',
        b"\xff\xfe",
        b'["a list"]',
        b'{"token": 3, "lasts_s": "x"}',
        json.dumps({"host": Process.here().host, "pid": 2**22 + 1, "token": "of an older version"}).encode(),
    ],
)
def test_a_lease_that_does_not_say_whose_it_is_blocks_no_longer(
    tmp_path: Path, clock: SimpleNamespace, content: bytes
) -> None:
    (tmp_path / "S1").write_bytes(content)
    assert not _have(tmp_path / "S1")
    clock.now += LASTS_S - 1
    assert not _have(tmp_path / "S1")
    clock.now += 2
    assert _have(tmp_path / "S1")


def test_who_wakes_up_while_it_is_taken_away_gets_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the date and the rename comes a sign of life."""
    path = tmp_path / "S1"
    _foreign(path, lasts_s=0.05)
    assert not is_free(path)
    time.sleep(0.06)
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        os.utime(path)
        rename(source, target)

    monkeypatch.setattr(lease_file, "os", SimpleNamespace(**{**vars(os), "rename": late}))
    assert not is_free(path)
    assert json.loads(path.read_text())["token"] == "theirs" and len(list(tmp_path.iterdir())) == 1


def test_the_next_owner_withdraws_what_the_last_one_was_writing(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    path, precious = tmp_path / "leases" / "S1", tmp_path / "precious.txt"
    precious.write_text("kept")
    code = "import os, sys; from pathlib import Path; from pathpipe.lease import Lease\n"
    code += "lease = Lease.acquire(Path(sys.argv[1]))\n"
    code += "for name in ('S1.h5', 'S1'):\n"
    code += "    partial = lease.partial(Path(sys.argv[2]) / name)\n"
    code += "    (partial if partial.suffix == '.h5' else (partial.mkdir(), partial / 'a')[1]).write_text('half')\n"
    code += "os._exit(9)\n"
    subprocess.run([sys.executable, "-c", code, path, folder], check=False)
    assert len(list(folder.iterdir())) == 2
    other = partial_path(folder / "S1.h5")
    other.write_text("of somebody else")
    with path.open("a") as file:
        file.write("../precious.txt\n../features/cut off")
    lease = Lease.acquire(path)
    assert lease is not None
    assert list(folder.iterdir()) == [other] and precious.exists()
    lease.release()


def test_what_cannot_be_withdrawn_keeps_the_next_owner_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, partial = tmp_path / "leases" / "S1", partial_path(tmp_path / "S1.h5")
    partial.write_text("half")
    path.parent.mkdir()
    _foreign(path)
    with path.open("a") as file:
        file.write(f"../{partial.name}\n")
    assert release_of(path, FAR.host, FAR.pid)

    def refused(source: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(source))

    with monkeypatch.context() as patched:
        patched.setattr(publish, "os", SimpleNamespace(**{**vars(os), "rename": refused}))
        for _ in range(2):
            with pytest.raises(PermissionError):
                Lease.acquire(path)
        assert not path.exists(), "the lease itself is given back"
    lease = Lease.acquire(path)
    assert lease is not None and not partial.exists()
    lease.release()
    assert list(path.parent.iterdir()) == []


def _fail_with(number: int) -> Callable[..., None]:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO, errno.ENOSPC])
def test_an_owner_that_cannot_touch_it_stops_after_half_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    lease = Lease.acquire(tmp_path / "S1", lasts_s=0.8, beat_s=0.02)
    assert lease is not None
    monkeypatch.setattr(lease_module, "os", SimpleNamespace(**{**vars(os), "utime": _fail_with(number)}))
    failing_since = time.monotonic()
    lease.keep()
    with pytest.raises(LeaseLostError, match=os.strerror(number)) as caught:
        while time.monotonic() < failing_since + 10:
            time.sleep(0.01)
            lease.keep()
    assert 0.35 < time.monotonic() - failing_since < 0.8 and "see to the disk" in (caught.value.hint or "")
    assert not lease.taken(), "nobody else has it: it failed"
    monkeypatch.undo()
    lease.keep()  # a disk that comes back before others take over
    lease.release()
    assert list(tmp_path.iterdir()) == []


def test_a_paused_owner_that_nobody_missed_goes_on(tmp_path: Path, clock: SimpleNamespace) -> None:
    lease = Lease.acquire(tmp_path / "S1", lasts_s=LASTS_S, beat_s=1e6)
    assert lease is not None
    os.utime(tmp_path / "S1", (0, 0))
    clock.now += 10 * LASTS_S
    lease.keep()
    assert (tmp_path / "S1").stat().st_mtime > 0
    lease.release()


def test_a_lease_that_could_not_be_given_back_is_no_other_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease.acquire(tmp_path / "S1")
    assert lease is not None
    with monkeypatch.context() as patched:
        patched.setattr(lease_file, "os", SimpleNamespace(**{**vars(os), "rename": _fail_with(errno.EROFS)}))
        lease.release()
    assert (tmp_path / "S1").exists()
    assert _have(tmp_path / "S1")


_FILL = """
import errno, resource, sys
from pathlib import Path
from pathpipe.lease import Lease
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    Lease.acquire(Path(sys.argv[1]))
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize("room", [0, 20])
def test_no_room_for_its_record_leaves_no_lease(tmp_path: Path, room: int) -> None:
    """A limit on a file's size fails the write, and not the creation, as a full disk does."""
    ended = subprocess.run(
        [sys.executable, "-c", _FILL, str(tmp_path / "S1"), str(room)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "EFBIG\n", "")
    assert list(tmp_path.iterdir()) == []


def test_the_lease_of_a_worker_known_to_be_dead_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "S1"
    assert not release_of(path, FAR.host, FAR.pid), "there is none"
    _foreign(path)
    assert not release_of(path, FAR.host, FAR.pid + 1) and not release_of(path, "another", FAR.pid)
    assert not _have(path)
    assert release_of(path, FAR.host, FAR.pid)
    assert _have(path)
