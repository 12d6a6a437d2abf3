"""One unit on a shared disk: paused workers, stale views, lost permissions, full and read-only disks."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pathpipe import lease as lease_module
from pathpipe import lease_file, publish
from pathpipe.cohort import Cohort
from pathpipe.errors import SettingsError
from pathpipe.execution.local import run_units
from pathpipe.execution.receipt import Receipt, read_receipt
from pathpipe.execution.unit import bring_up_to_date
from pathpipe.lease import Lease
from pathpipe.lease_file import read_lease
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge
from pathpipe.stages.stage import Job, Made
from tests.conftest import ROOT
from tests.unit.execution import toy

SHAPES = pytest.mark.parametrize("is_file", [True, False], ids=["file", "folder"])
POINTS = ("before make", "inside make", "before the rename", "between the renames")


def make_run(folder: Path) -> Run:
    (folder / "S1.svs").write_text("pixels")
    return Run.create(folder / "run", Cohort.read(folder / "S1.svs"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path)


def _say(what: str) -> Callable[[Job], Made]:
    return lambda job: toy.write(job, what)


def _at(point: str, act: Callable[[], None], monkeypatch: Any, is_file: bool) -> Callable[[Job], Made]:
    """A `make` of a worker that does something at that point, once."""
    acts = iter([act])

    def reached(name: str) -> None:
        if name == point:
            next(acts, lambda: None)()

    def make(job: Job) -> Made:
        reached("before make")
        made = toy.write(job, "late", sign_of_life=False)
        reached("inside make")
        return made

    def put(partial: Path, target: Path, claim: publish.Claim | None) -> None:
        if target.parent.name == "toy":
            reached("before the rename")
        original_put(partial, target, claim)

    def rename(source: Path, target: Path) -> None:
        os.rename(source, target)
        if Path(source).parent.name == "toy" and not Path(source).name.startswith("."):
            reached("between the renames")

    original_put = publish._put
    monkeypatch.setattr(publish, "_put", put)
    monkeypatch.setattr(publish, "os", SimpleNamespace(**{**vars(os), "rename": rename}))
    return make


@SHAPES
@pytest.mark.parametrize("point", POINTS[:3])
def test_a_worker_that_was_taken_over_publishes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, point: str, is_file: bool
) -> None:
    """The other one takes over, and publishes, between two lines of the first."""
    settings, clock = toy.settings(mpp=0.5), SimpleNamespace(now=0.0)
    bring_up_to_date(toy.stage(_say("stale"), is_file), run, "S1", toy.settings(mpp=0.25))
    monkeypatch.setattr(lease_module, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def take_over() -> None:
        other = toy.stage(_say("in time"), is_file)
        assert bring_up_to_date(other, run, "S1", settings).state == "busy"
        clock.now += 301
        assert bring_up_to_date(other, run, "S1", settings).state == "done"
        clock.now -= 301  # this worker's machine slept with its clock

    late = _at(point, take_over, monkeypatch, is_file)
    receipt = bring_up_to_date(toy.stage(late, is_file), run, "S1", settings)
    assert (receipt.state, toy.content(run, "S1")) == ("busy", "in time")
    kept = read_receipt(run, "toy", "S1")
    assert kept is not None and kept.state == "done", "the receipt of who made it"
    assert bring_up_to_date(toy.stage(late, is_file), run, "S1", settings).state == "current"
    assert toy.leftovers(run) == []


_SLEEPER = """
import json, os, signal, sys
from pathlib import Path
import pytest
from pathpipe.execution.unit import bring_up_to_date
from pathpipe.run import Run
from tests.unit.execution import test_unit_faults as faults, toy
run, monkeypatch = Run.open(Path(sys.argv[1])), pytest.MonkeyPatch()
for number, point in enumerate(faults.POINTS):
    is_file = point != faults.POINTS[-1]
    make = faults._at(point, lambda: os.kill(os.getpid(), signal.SIGSTOP), monkeypatch, is_file)
    for _ in range(2):
        receipt = bring_up_to_date(toy.stage(make, is_file), run, f"S{number}", toy.settings(0.2, mpp=0.5))
        print(json.dumps([receipt.state, receipt.reason]), flush=True)
    monkeypatch.undo()
"""


def test_a_process_stopped_at_any_point_wakes_up_late(run: Run) -> None:
    for number, point in enumerate(POINTS):  # a stale artefact lies there, so that a folder takes two renames
        made = toy.stage(_say("stale"), point != POINTS[-1])
        assert bring_up_to_date(made, run, f"S{number}", toy.settings(mpp=0.25)).state == "done"
    command, environment = [sys.executable, "-c", _SLEEPER, str(run.folder)], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as sleeper:
        assert sleeper.stdout is not None
        for number, point in enumerate(POINTS):
            _, status = os.waitpid(sleeper.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status), point
            other = toy.stage(_say("in time"), point != POINTS[-1])
            states: list[str] = []
            while not states or states[-1] == "busy":
                states.append(bring_up_to_date(other, run, f"S{number}", toy.settings(0.2, mpp=0.5)).state)
                time.sleep(0.01)
            assert states[0] == "busy" and states[-1] == "done" and len(states) > 3, point
            sleeper.send_signal(signal.SIGCONT)
            state, reason = json.loads(sleeper.stdout.readline())
            assert state == "busy" and "lost" in reason, point
            assert json.loads(sleeper.stdout.readline())[0] == "current", point
            assert toy.content(run, f"S{number}") == "in time", point
        assert sleeper.wait(timeout=20) == 0
    assert toy.leftovers(run) == []


def test_a_lost_unit_is_looked_at_again_and_is_current(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person sees it: the command ends well, because another one has made it."""
    from pathpipe.execution import local

    states = iter(["busy", "current"])
    taken = Lease.acquire(run.lease("toy", "S1"))
    assert taken is not None

    def work(run: Run, stages: object, settings: RunSettings, key: str, *more: object, **named: object) -> Any:
        state = next(states)
        if state == "busy":
            taken.release()
        return [Receipt("toy", key, state)]  # type: ignore[arg-type]

    heard: list[str] = []
    listener = SimpleNamespace(
        progress=lambda progress: None, finished=lambda key, found: heard.append(found[-1].state)
    )
    monkeypatch.setattr(local, "work", work)
    assert run_units(run, ["tile"], toy.settings(), ["S1"], listener)["S1"][-1].state == "current"  # type: ignore
    assert heard == ["current"]


class _Remembers:
    """An NFS client: what wasn't there a moment ago isn't looked up again, until it changes the folder itself."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._absent, self._exists = folder, set[Path](), Path.exists
        monkeypatch.setattr(Path, "exists", lambda path: self.exists(path))
        monkeypatch.setattr(publish, "os", SimpleNamespace(**{**vars(os), "open": self.open}))

    def exists(self, path: Path) -> bool:
        if path in self._absent:
            return False
        there = self._exists(path)
        if not there and path.parent == self._folder:
            self._absent.add(path)
        return there

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and Path(path).parent == self._folder:
            self._absent.clear()
        return os.open(path, flags, mode)


def test_what_another_machine_published_is_not_made_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = toy.stage(_say("theirs"), is_file=True)
    path = stage.output(run, "S1", toy.settings())
    client = _Remembers(path.parent, monkeypatch)
    assert not client.exists(path)
    with monkeypatch.context() as elsewhere:  # another machine has a memory of its own
        elsewhere.setattr(Path, "exists", client._exists)
        elsewhere.setattr(publish, "os", os)
        assert bring_up_to_date(stage, run, "S1", toy.settings()).state == "done"
    assert not client.exists(path), "this one doesn't see it yet"
    never = toy.stage(lambda job: pytest.fail("made twice"), is_file=True)
    assert bring_up_to_date(never, run, "S1", toy.settings()).state == "current"


CALLS = ("open", "fsync", "rename", "replace", "utime", "unlink", "stat")


@SHAPES
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("call", CALLS)
def test_a_disk_that_fails_in_the_middle(
    run: Run, monkeypatch: pytest.MonkeyPatch, call: str, number: int, is_file: bool
) -> None:
    """From inside `make` on, one call of the system always fails: one reason, nothing half, and then the same bytes."""

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), str(arguments[0]))

    with monkeypatch.context() as patched:

        def make(job: Job) -> Made:
            made = toy.write(job)
            for module in (lease_module, lease_file, publish):
                patched.setattr(module, "os", SimpleNamespace(**{**vars(os), call: fail}))
            return made

        receipt = bring_up_to_date(toy.stage(make, is_file), run, "S1", toy.settings())
    published = [path for path in (run.folder / "toy").iterdir() if not path.name.startswith(".")]
    if receipt.state == "done":
        assert toy.content(run, "S1") == "whole"
        assert call in ("rename", "unlink") and receipt.reason is None, "only the lease could not be given back"
    else:
        # a lease that says that it is stale has been removed by another
        assert receipt.state == ("busy" if (call, number) == ("open", errno.ESTALE) else "failed")
        assert receipt.trace is None and receipt.reason is not None
        assert receipt.state == "busy" or os.strerror(number) in receipt.reason
        # the folder's own fsync comes after the rename: it is there, though a power cut may take it away
        assert published == [] or call in ("fsync", "open")
    again = bring_up_to_date(toy.stage(_say("whole"), is_file), run, "S1", toy.settings())
    assert again.state == ("current" if published else "done")
    assert toy.content(run, "S1") == "whole"
    left = [Path(one).parent.name for one in toy.leftovers(run) if "receipts" not in one]
    assert left == ([] if receipt.state != "done" else ["toy"]), "a lease that nobody waits for"
    assert [path for path in (run.folder / "toy").iterdir() if path.name.startswith(".")] == []


def test_a_disk_that_no_longer_takes_signs_of_life_ends_the_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(arguments[0]))

    def make(job: Job) -> Made:
        monkeypatch.setattr(lease_module, "os", SimpleNamespace(**{**vars(os), "utime": fail}))
        for _ in range(500):
            time.sleep(0.01)
            toy.write(job) if not job.target.exists() else job.notify(None)  # type: ignore[arg-type]
        pytest.fail("it went on")

    receipt = bring_up_to_date(toy.stage(make), run, "S1", toy.settings(lease_s=0.4))
    lease = run.lease("toy", "S1")
    assert (receipt.state, receipt.reason) == ("failed", f"{lease}: the lease can't be kept: Read-only file system")
    monkeypatch.undo()
    assert bring_up_to_date(toy.stage(_say("whole")), run, "S1", toy.settings()).state == "done"
    assert toy.leftovers(run) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    run = make_run(small_disk)

    def fill(job: Job) -> Made:
        with open(small_disk / "ballast", "wb", buffering=0) as ballast:
            for size in (4096, 1):
                while True:
                    try:
                        ballast.write(bytes(size))
                    except OSError:
                        break
        return toy.write(job, "whole" * 2000)

    receipt = bring_up_to_date(toy.stage(fill), run, "S1", toy.settings())
    assert receipt.state == "failed" and "No space left on device" in (receipt.reason or "")
    assert receipt.hint == "free some space and run again"
    assert list((run.folder / "toy").iterdir()) == []
    other = bring_up_to_date(toy.stage(_say("small")), run, "S2", toy.settings())
    assert other.state == "failed" and "No space left on device" in (other.reason or ""), "not even a lease has room"
    (small_disk / "ballast").unlink()
    assert bring_up_to_date(toy.stage(_say("whole")), run, "S1", toy.settings()).state == "done"
    assert bring_up_to_date(toy.stage(_say("small")), run, "S2", toy.settings()).state == "done"
    assert toy.leftovers(run) == []


def test_a_disk_that_really_becomes_read_only(small_disk: Path) -> None:
    run = make_run(small_disk)

    def remount(job: Job) -> Made:
        made = toy.write(job)
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        return made

    receipt = bring_up_to_date(toy.stage(remount), run, "S1", toy.settings())
    assert receipt.state == "failed" and "Read-only file system" in (receipt.reason or "")
    assert [path for path in (run.folder / "toy").iterdir() if not path.name.startswith(".")] == []
    for _ in range(2):
        again = bring_up_to_date(toy.stage(_say("whole")), run, "S2", toy.settings())
        assert again.state == "failed" and "Read-only file system" in (again.reason or "")
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert bring_up_to_date(toy.stage(_say("whole")), run, "S1", toy.settings()).state == "done"
    assert toy.leftovers(run) == []


_ROBBED = """
import json, os, sys
from pathlib import Path
from pathpipe.execution.unit import bring_up_to_date
from tests.unit.execution import test_unit_faults as faults, toy

def go_through(robbed, folder):
    folder.mkdir()
    run = faults.make_run(folder)
    (run.folder / robbed).mkdir(parents=True, exist_ok=True)
    def make(job):
        made = toy.write(job)
        (run.folder / robbed).chmod(0o555)
        return made
    def said(make):
        receipt = bring_up_to_date(toy.stage(make), run, "S1", toy.settings())
        return receipt.state, receipt.reason, receipt.hint
    first = said(make)
    seen = [path.name for path in (run.folder / "toy").iterdir() if not path.name.startswith(".")]
    (run.folder / robbed).chmod(0o755)
    return robbed, first, seen, said(toy.write), toy.leftovers(run)

go_through("toy", Path(sys.argv[1]) / "warm-up")  # what is imported late may be out of this user's reach
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for robbed in ("toy", "leases/toy", "receipts"):
    print(json.dumps(go_through(robbed, Path(sys.argv[1]) / robbed.replace("/", "-"))))
"""


def test_permission_that_is_lost_in_the_middle() -> None:
    """Of an ordinary user, whom permissions bind."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        Path(folder).chmod(0o777)
        command, environment = [sys.executable, "-c", _ROBBED, folder], {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    output, leases, receipts = map(json.loads, done.stdout.splitlines())
    denied = ["failed", f"{folder}/toy/run/toy/S1: Permission denied", "check the permissions"]
    assert output == ["toy", denied, [], ["done", None, None], []]
    assert leases[:4] == ["leases/toy", ["done", None, None], ["S1"], ["current", None, None]]
    assert receipts[1][0] == "done" and "its receipt can't be written" in receipts[1][1]
    assert receipts[2:] == [["S1"], ["current", None, None], []]


def test_lease_s_is_what_the_lease_says(run: Run) -> None:
    found: list[float | None] = []

    def make(job: Job) -> Made:
        lease = read_lease(run.lease("toy", "S1"))
        found.append(lease.lasts_s if lease else None)
        return toy.write(job)

    asked = merge(RunSettings, [("test", {"execution": {"lease_s": 1200}})])[0]
    assert bring_up_to_date(toy.stage(make), run, "S1", asked).state == "done"
    assert found == [1200]
    with pytest.raises(SettingsError, match="lease_s"):
        merge(RunSettings, [("test", {"execution": {"lease_s": 60}})])


def test_a_saved_training_is_its_owners_only(tmp_path: Path) -> None:
    from pathpipe.errors import LeaseLostError
    from pathpipe.training.state import StateFile

    lease = Lease.acquire(tmp_path / "leases" / "fold-0-seed-0")
    assert lease is not None
    state = StateFile(tmp_path / ".state", "fp", every_s=0, claim=lease)
    state.save(lambda: {"step": 1})
    lease.path.write_text('{"token": "of somebody else"}')
    with pytest.raises(LeaseLostError):
        state.save(lambda: {"step": 2})
    with pytest.raises(LeaseLostError):
        state.forget()
    assert state.read() == {"step": 1} and sorted(os.listdir(tmp_path)) == [".state", "leases"]
    lease.release()


def test_features_are_counted_with_fresh_eyes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other machines made a moment ago is trained on, embedded and explained."""
    from pathpipe.stages.chain import units
    from pathpipe.stages.patients import feature_sets

    settings = toy.settings()
    path = run.features(settings.extract.encoder, "S1")
    path.parent.mkdir(parents=True)
    client = _Remembers(path.parent, monkeypatch)
    for count in (lambda: units(run, "embed", settings), lambda: list(feature_sets(run, settings))):
        assert not client.exists(path)
        path.write_text("theirs")
        assert not client.exists(path) and count() == ["S1"]
        path.unlink()


def test_a_search_whose_owner_may_be_dead_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathpipe.execution import sweep

    monkeypatch.setattr(sweep, "_POLL_S", 0.02)
    path = tmp_path / "study"
    path.write_text(json.dumps({"host": "far", "token": "theirs", "lasts_s": 0.3}) + "\n")
    assert sweep._lease(path, 300) is None, "somebody is at it"
    os.utime(path, (1, 1))
    began = time.monotonic()
    lease = sweep._lease(path, 300)
    assert lease is not None and 0.1 <= time.monotonic() - began < 5
    lease.release()
