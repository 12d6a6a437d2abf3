"""The same commands on a real Ray cluster of two nodes on loopback: same bytes, whatever dies."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from tests.integration.conftest import SMALL, Call, environment, write_slide

RAY = Path(sys.executable).parent / "ray"
pytestmark = pytest.mark.skipif(not RAY.exists(), reason="Ray is not installed (extra `ray`)")
SLOW = (*SMALL, "--tiles-per-batch", "1", "--read-threads", "1", "--slides-in-flight", "1")
TRAINED = (*SLOW, "--folds", "2", "--epochs", "3", "--worker-cpus", "1", "--workers", "1")
SLIDES = 6
FEATURES = Path("features", "efficientnet-lite0")


class Cluster:
    """Nodes of one processor each, as `ray start` starts them."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        self.address, self._folder = f"127.0.0.1:{port}", folder
        self._nodes: list[subprocess.Popen[bytes]] = []
        own = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(folder / "plugin")}
        self.environment = {**environment(), **own}

    def add(self) -> subprocess.Popen[bytes]:
        """Start one more node; it is there when this returns."""
        head = ["--head", "--port", self.address.split(":")[1], "--temp-dir", str(self._folder)]
        log = self._folder / f"node{len(self._nodes)}.log"
        command = [str(RAY), "start", *(head if not self._nodes else ["--address", self.address]), "--block"]
        command += ["--num-cpus", "1", "--num-gpus", "0", "--object-store-memory", "80000000"]
        with log.open("wb") as out:
            node = subprocess.Popen(
                command, env=self.environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._nodes.append(node)
        wait_until(lambda: "runtime started" in log.read_text() or node.poll() is not None)
        assert node.poll() is None, log.read_text()
        return node

    def start(self, *arguments: object, **more: str) -> subprocess.Popen[str]:
        """`pathpipe ARGS... --on ray`, on its way."""
        command = [sys.executable, "-m", "pathpipe", *map(str, arguments), "--on", "ray"]
        told = {**self.environment, "RAY_ADDRESS": self.address, **more}
        told = {name: value for name, value in told.items() if value}
        return subprocess.Popen(
            command, env=told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def call(self, *arguments: object, check: int = 0) -> str:
        """The same, to its end; what it says on stderr."""
        process = self.start(*arguments)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == check, errors
        assert out == ""
        return errors

    def end(self) -> None:
        for node in reversed(self._nodes):
            for pid in descendants(node.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            node.kill()
            node.wait()


def descendants(pid: int) -> list[int]:
    """Processes below one, the nearest first."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found = parents.get(pid, [])
    for child in found:
        found.extend(parents.get(child, []))
    return found


def wait_until(there: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "it didn't happen"
        time.sleep(0.02)


def owners(run: Path) -> dict[str, int]:
    """Slide under extraction -> process that makes it."""
    found = {}
    for path in (run / "leases" / "extract").glob("[!.]*"):
        with suppress(FileNotFoundError, IndexError, json.JSONDecodeError):
            found[path.name] = json.loads(path.read_text().splitlines()[0])["pid"]
    return found


def digests(folder: Path, pattern: str = "*.h5") -> dict[str, str]:
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def receipts(run: Path, stage: str) -> dict[str, dict[str, object]]:
    return {path.stem: json.loads(path.read_text()) for path in (run / "receipts" / stage).glob("*.json")}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # Ray's sockets need a short path
    info = folder / "plugin" / "their_readers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-readers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pathpipe.readers]\ncrash = their_readers:crash\n")
    (folder / "plugin" / "their_readers.py").write_text(
        "import os\nfrom pathpipe.slides.readers.openslide import OpenSlideSlide\n"
        "def crash(path):\n    os._exit(11) if path.stem == 'S1' else None\n    return OpenSlideSlide(path)\n"
    )
    one = Cluster(folder)
    try:
        one.add()
        yield one
    finally:
        one.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    rows = []
    for number in range(SLIDES):
        write_slide(folder / f"S{number}.svs", seed=number, foreign=number % 2 == 1)
        label = "implant" if number % 2 else "plain"
        rows.append({"path": f"S{number}.svs", "patient_id": f"P{number}", "label": label})
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    return folder / "cohort.csv"


@pytest.fixture(scope="module")
def ray_run(cluster: Cluster, cohort: Path) -> Path:
    """A run of which features were made on two nodes, one of which was killed in the middle; trained on the other."""
    run, node = cohort.parent / "ray", cluster.add()
    process = cluster.start("train", cohort, "-o", run, *TRAINED)

    def inside_a_slide() -> list[str]:
        assert process.poll() is None, "it ended before the node was killed"
        there = descendants(node.pid)
        held = [key for key, pid in owners(run).items() if pid in there]
        return [key for key in held if (run / FEATURES / f"{key}.rows").exists()]

    wait_until(inside_a_slide)
    lost = {key for key, pid in owners(run).items() if pid in descendants(node.pid)}
    for pid in descendants(node.pid):
        os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    again = {key: one["tried"] for key, one in receipts(run, "extract").items() if one["tried"]}
    assert set(again) == lost and len(lost) == 1
    assert str(again[lost.pop()]).endswith("contact with its node was lost']")
    return run


@pytest.fixture(scope="module")
def local_run(pathpipe: Call, cohort: Path) -> Path:
    """The same, on this machine."""
    pathpipe("train", cohort, "-o", cohort.parent / "local", *TRAINED)
    return cohort.parent / "local"


def test_a_node_is_killed_and_every_slide_is_made_once(local_run: Path, ray_run: Path) -> None:
    expected = digests(local_run / FEATURES)
    assert len(expected) == SLIDES
    assert digests(ray_run / FEATURES) == expected
    made = receipts(ray_run, "extract")
    assert [one["state"] for one in made.values()] == ["done"] * SLIDES
    assert sorted(one["attempts"] == 2 for one in made.values()) == [False] * (SLIDES - 1) + [True]
    assert all(float(str(one["seconds"])) < 60 for one in made.values()), "it waited for the dead worker's lease"
    assert not [path for path in (ray_run / "leases").rglob("*") if path.is_file()]
    assert not list(ray_run.rglob("*.rows")) and not list(ray_run.rglob("*.partial*"))


def test_folds_are_the_same(local_run: Path, ray_run: Path) -> None:
    expected = digests(local_run / "train", "*/fold-*/*")
    assert sorted({Path(name).name for name in expected}) >= ["history.csv", "model.pt", "predictions.csv"]
    assert digests(ray_run / "train", "*/fold-*/*") == expected


def test_candidates_of_a_sweep_are_the_same(
    pathpipe: Call, cluster: Cluster, local_run: Path, ray_run: Path, tmp_path: Path
) -> None:
    config = tmp_path / "sweep.yaml"
    space = "{lr: {low: 1.0e-4, high: 1.0e-1, log: true}, batch_size: [1, 2]}"
    config.write_text(f"sweep: {{trials: 3, side_by_side: 2, objective: loss, space: {space}}}\n")
    told = ("--config", str(config), *TRAINED)
    process = cluster.start("sweep", ray_run, *told)
    here = pathpipe("sweep", local_run, *told)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert out == here.stdout and len(out.splitlines()) == 4
    expected = digests(local_run / "sweeps", "*/*[lv]")  # best.yaml and trials.csv
    assert {Path(name).name for name in expected} >= {"best.yaml", "trials.csv"}
    names = [name for name in expected if not name.endswith(".journal")]  # which knows dates
    made = digests(ray_run / "sweeps", "*/*[lv]")
    assert {name: made[name] for name in names} == {name: expected[name] for name in names}


def test_a_worker_that_dies_costs_its_unit(cluster: Cluster, cohort: Path, tmp_path: Path) -> None:
    errors = cluster.call("tile", cohort, "-o", tmp_path / "run", *SMALL, "--reader", "crash", check=1)
    assert "failed: tissue S1: its worker died 3 times, last on" in errors, errors
    assert sorted(digests(tmp_path / "run" / "tiles")) == [f"S{number}.h5" for number in (0, 2, 3, 4, 5)]
    failed = receipts(tmp_path / "run", "tissue")["S1"]
    assert failed["state"] == "failed" and failed["attempts"] == 3
    assert [str(one).partition(": ")[2] for one in failed["tried"]] == [  # type: ignore[attr-defined]
        "its process died: a reader crashed, or memory ran out"
    ] * 3


def test_what_the_cluster_lacks_is_refused(cluster: Cluster, cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    refused = cluster.call("extract", cohort, "-o", run, *SMALL, "--worker-gpus", "1", check=2)
    assert "no node of the Ray cluster can hold a worker with 1 GPU" in refused
    assert "it has 1 node: 1 CPU" in refused or "it has 2 nodes: 1 CPU" in refused, refused
    assert not (run / "tissue").exists()


def test_interrupt_gives_leases_back(cluster: Cluster, cohort: Path, tmp_path: Path) -> None:
    """On a cluster of its own, which ends with it."""
    run = tmp_path / "run"
    process = cluster.start("extract", cohort, "-o", run, *SLOW, RAY_ADDRESS="")
    try:
        wait_until(lambda: process.poll() is not None or list((run / FEATURES).glob("*.rows")))
        begun = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert errors.strip().endswith("the same command goes on from there") and "Traceback" not in errors
    assert not [path for path in (run / "leases").rglob("*") if path.is_file()]
    assert len(list((run / FEATURES).glob("*.h5"))) < SLIDES
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in begun), 30)
