"""Leases: exclusive, and never held by the dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from pathpipe.lease import Lease


def test_only_one_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "leases" / "S1"
    first = Lease.acquire(path)
    assert first is not None
    assert Lease.acquire(path) is None
    first.release()
    second = Lease.acquire(path)
    assert second is not None
    second.release()
    assert not path.exists()


def test_sixteen_threads_one_winner(tmp_path: Path) -> None:
    winners: list[Lease] = []
    barrier = threading.Barrier(16)

    def compete() -> None:
        barrier.wait()
        lease = Lease.acquire(tmp_path / "S1")
        if lease is not None:
            winners.append(lease)

    threads = [threading.Thread(target=compete) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    winners[0].release()


def test_lease_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from pathpipe.lease import Lease\n"
    code += "Lease.acquire(Path(sys.argv[1])); os._exit(9)\n"
    subprocess.run([sys.executable, "-c", code, tmp_path / "S1"], check=False)
    assert (tmp_path / "S1").exists()
    lease = Lease.acquire(tmp_path / "S1")
    assert lease is not None
    lease.release()


def _foreign(path: Path, age_s: float) -> None:
    path.write_text(json.dumps({"host": "another-host", "pid": os.getpid(), "token": "theirs"}))
    then = time.time() - age_s
    os.utime(path, (then, then))


def test_heartbeat_keeps_it_young(tmp_path: Path) -> None:
    path = tmp_path / "S1"
    lease = Lease.acquire(path, beat_s=0.02)
    assert lease is not None
    os.utime(path, (0, 0))
    deadline = time.monotonic() + 5
    while path.stat().st_mtime < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.stat().st_mtime > 1
    lease.release()


def test_a_child_of_a_fork_gives_nothing_back(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from pathpipe.lease import Lease\n"
    code += "path = Path(sys.argv[1]); lease = Lease.acquire(path)\n"
    code += "if os.fork() == 0:\n    raise SystemExit\n"
    code += "os.wait(); assert lease.mine(); lease.release(); assert not path.exists()\n"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, tmp_path / "S1"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_lost_lease_is_noticed_and_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "S1"
    lease = Lease.acquire(path)
    assert lease is not None and lease.mine()
    _foreign(path, age_s=0)
    assert not lease.mine()
    lease.release()
    assert path.exists()


def test_what_an_interrupt_left_is_given_back_at_exit(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from pathpipe.lease import Lease\n"
    code += "assert Lease.acquire(Path(sys.argv[1])); assert Lease.acquire(Path(sys.argv[2])) is None\n"
    code += "raise KeyboardInterrupt\n"
    _foreign(tmp_path / "theirs", age_s=0)
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "mine", tmp_path / "theirs"], capture_output=True)
    assert b"KeyboardInterrupt" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
