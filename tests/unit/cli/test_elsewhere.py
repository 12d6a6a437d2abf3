"""Work that is handed to Slurm, or only shown: with an `sbatch` that only writes down what it is told."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from pathpipe.cli.app import main
from pathpipe.run import Run
from tests.integration.conftest import write_slide

Command = Callable[..., tuple[int, str, str]]


class Cluster:
    """A queue that is a file, and a file of what sbatch and scancel were called with."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.queue = folder, folder / "queue"
        self.queue.touch()

    @property
    def asked(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def holds(self, *lines: str) -> None:
        """`JOB|ELEMENT|STATE|REASON` of each element in the queue."""
        self.queue.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    folder = tmp_path / "bin"
    folder.mkdir()
    fakes = {
        "sbatch": f'echo "sbatch $@" >> {folder}/log\necho $((100 + $(grep -c ^sbatch {folder}/log)))\n',
        "squeue": f"cat {folder}/queue\n",
        "scancel": f'echo "scancel $@" >> {folder}/log\n',
    }
    for name, text in fakes.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Cluster(folder)


@pytest.fixture
def pathpipe(capsys: pytest.CaptureFixture[str]) -> Command:
    """Exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return call


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    rows = []
    for number in range(6):
        write_slide(folder / f"S{number}.svs", seed=number)
        rows.append({"path": f"S{number}.svs", "patient_id": f"P{number}", "label": "ab"[number % 2]})
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    return folder / "cohort.csv"


def test_a_command_becomes_a_chain_of_arrays(cluster: Cluster, pathpipe: Command, cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    asked = ("--folds", 2, "--seeds", "0,1,2", "--at-once", 4, "--worker-gpus", 1, "--worker-memory-gb", 32)
    limits = ("--worker-hours", 1.5, "--partition", "gpu", "--for-stage", "tile.partition=cpu", "--for-stage")
    code, out, err = pathpipe("train", cohort, "-o", run, "--on", "slurm", *asked, *limits, "tile.worker_cpus=2")
    assert code == 0, err
    jobs = run / "jobs" / "0001"
    assert cluster.asked == [
        f"sbatch --parsable {jobs}/tile.sbatch",
        f"sbatch --parsable --dependency=afterany:101 {jobs}/extract.sbatch",
        f"sbatch --parsable --dependency=afterok:102 {jobs}/audit.sbatch",
        f"sbatch --parsable --dependency=afterok:103 {jobs}/train.sbatch",
    ]
    rows = [line.split("\t") for line in out.splitlines()]
    assert [(row[0], row[1], row[2], row[5]) for row in rows[1:]] == [
        ("tile", "0-3", "6", "101"),
        ("extract", "0-3", "6", "102"),
        ("audit", "0", "1", "103"),
        ("train", "0-3", "6", "104"),  # 2 folds x 3 seeds
    ]
    assert f"pathpipe jobs {run}" in err
    lines = (jobs / "extract.sbatch").read_text().splitlines()
    assert [line for line in lines if line.startswith("#SBATCH")] == [
        f"#SBATCH {option}"
        for option in (
            "--job-name=pathpipe-extract",
            "--array=0-3",
            f"--output={jobs}/logs/extract-%a.log",
            "--open-mode=append",
            "--requeue",
            "--signal=B:USR1@60",
            "--kill-on-invalid-dep=yes",
            "--nodes=1",
            "--ntasks=1",
            "--cpus-per-task=4",
            "--gres=gpu:1",
            "--mem=30518M",  # 32e9 / 2**20, rounded up
            "--time=90",
            "--partition=gpu",
        )
    ]
    assert lines[-1].endswith(
        f'-m pathpipe extract {run} --config {jobs}/settings.yaml --device cuda --shard "$SLURM_ARRAY_TASK_ID/4"'
    )
    tile = (jobs / "tile.sbatch").read_text()
    assert "--partition=cpu" in tile and "--cpus-per-task=2" in tile and "gres" not in tile
    assert (jobs / "audit.sbatch").read_text().rstrip().endswith('--shard "$SLURM_ARRAY_TASK_ID/1"')


def test_elements_are_asked_for_the_same_settings(
    cluster: Cluster, pathpipe: Command, cohort: Path, tmp_path: Path
) -> None:
    run, asked = tmp_path / "run", ("--tile-um", 168, "--tile-px", 112, "--model", "dsmil", "--seeds", "3,1")
    assert pathpipe("train", cohort, "-o", run, "--folds", 2, *asked, "--on", "slurm", "--at-once", 3)[0] == 0
    file = run / "jobs" / "0001" / "settings.yaml"
    _, typed, _ = pathpipe("train", cohort, "-o", tmp_path / "other", "--folds", 2, *asked, "--print-config")
    code, printed, err = pathpipe("train", run, "--config", file, "--shard", "2/3", "--print-config")
    assert code == 0, err
    found, expected = yaml.safe_load(printed), yaml.safe_load(typed)
    assert (found["tile"]["tile_um"], found["train"]["seeds"]) == (168, [3, 1])
    assert found.pop("cluster")["at_once"] == 3
    expected["execution"] |= {"shard": "2/3", "help_others": True}
    assert found == {name: value for name, value in expected.items() if name != "cluster"}
    assert Run.open(run).settings().tile.tile_um == 168


def test_a_dry_run_writes_nothing_and_submits_nothing(
    cluster: Cluster, pathpipe: Command, cohort: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    asked = ("train", cohort, "-o", run, "--folds", 2, "--dry-run")
    code, out, err = pathpipe(*asked, "--on", "slurm", "--at-once", 2)
    assert code == 0, err
    assert out.count("#!/bin/bash") == 4 and "#SBATCH --array=0-1" in out
    assert out.splitlines()[-4:] == [
        f"sbatch --parsable {run}/jobs/0001/tile.sbatch",
        f"sbatch --parsable --dependency=afterany:<tile> {run}/jobs/0001/extract.sbatch",
        f"sbatch --parsable --dependency=afterok:<extract> {run}/jobs/0001/audit.sbatch",
        f"sbatch --parsable --dependency=afterok:<audit> {run}/jobs/0001/train.sbatch",
    ]
    code, out, err = pathpipe(*asked, "--workers", 2)
    assert code == 0, err
    assert [line.split("\t")[:4] for line in out.splitlines()] == [
        ["stage", "units", "left", "workers"],
        ["tissue", "6", "6", "2"],
        ["tile", "6", "6", "2"],
        ["extract", "6", "6", "2"],
        ["split", "1", "1", "1"],
        ["audit", "1", "1", "1"],
        ["train", "2", "2", "2"],
    ]
    assert not run.exists() and not cluster.asked


def test_what_is_done_is_not_submitted(cluster: Cluster, pathpipe: Command, cohort: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert pathpipe("tile", cohort, "-o", run)[0] == 0
    (run / "tiles" / "S3.h5").unlink()
    code, out, _ = pathpipe("tile", run, "--on", "slurm", "--at-once", 1, "--dry-run")
    assert code == 0 and "#SBATCH --array=0\n" in out
    _, out, _ = pathpipe("tile", run, "--dry-run")
    assert [line.split("\t")[:3] for line in out.splitlines()[1:]] == [
        ["tissue", "6", "0"],
        ["tile", "6", "1"],
        ["contact-sheet", "1", "1"],
    ]
    code, _, err = pathpipe("tile", run, "--mpp", 1, "--on", "slurm")
    assert code == 2 and "was made with other settings" in err and not cluster.asked
    assert pathpipe("tile", run)[0] == 0
    code, _, err = pathpipe("tile", run, "--on", "slurm")
    assert code == 0 and "nothing is left to do" in err and not cluster.asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["audit"], "`audit` is one job: submit its command yourself"),
        (["extract", "--worker-gpus", "0.5"], "Slurm hands out whole ones"),
        (["extract", "--gpus", "0,1"], "names GPUs of one machine"),
        (["extract", "--shard", "0/2"], "is for a part of the work"),
        (["extract", "--for-stage", "extrat.worker_gpus=1"], "did you mean `extract`?"),
        (["extract", "--worker-gpus", "1", "--device", "cpu"], "is to use the CPU"),
        (["extract", "--with-encoders", "no-such"], "no-such"),
    ],
)
def test_what_slurm_cant_do_is_refused(
    cluster: Cluster, pathpipe: Command, cohort: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    code, _, err = pathpipe(words[0], cohort, "-o", tmp_path / "run", "--on", "slurm", *words[1:])
    assert code == 2 and said in err and not cluster.asked
    assert not list((tmp_path / "run").glob("jobs/*"))


def test_a_step_that_slurm_refuses_takes_the_others_back(
    cluster: Cluster, pathpipe: Command, cohort: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (cluster.folder / "sbatch").write_text(
        f'#!/bin/sh\necho "sbatch $@" >> {cluster.folder}/log\n'
        'case "$*" in *extract*) echo "sbatch: error: invalid partition" >&2; exit 1;; esac\necho 101\n'
    )
    code, _, err = pathpipe("extract", cohort, "-o", run, "--on", "slurm", "--partition", "gup")
    assert code == 2 and "Slurm refuses it: sbatch: error: invalid partition" in err
    assert cluster.asked[-1] == "scancel 101" and not list((run / "jobs").glob("*"))


def test_without_slurm_it_says_so(
    pathpipe: Command, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = pathpipe("tile", cohort, "-o", tmp_path / "run", "--on", "slurm")
    assert code == 3 and "there is no `sbatch` on this machine" in err
    assert pathpipe("jobs", tmp_path / "run")[0] == 2


def _record(run: Path, element: str, *attempts: dict[str, Any]) -> None:
    full = [{"job": "102", "host": "n7", "pid": 1, "started": time.time() - 60, **one} for one in attempts]
    (run / "jobs" / "0001" / "elements" / f"{element}.json").write_text(json.dumps({"attempts": full}))


def _receipt(run: Path, key: str, state: str) -> None:
    folder = run / "receipts" / "extract"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{key}.json").write_text(json.dumps({"stage": "extract", "key": key, "state": state}))


@pytest.fixture
def submitted(cluster: Cluster, pathpipe: Command, cohort: Path, tmp_path: Path) -> Path:
    """Six elements of one slide each: 101 tiles, 102 encodes, 103 audits; an hour ago."""
    run = tmp_path / "run"
    assert pathpipe("embed", cohort, "-o", run, "--on", "slurm")[0] == 0
    file = run / "jobs" / "0001" / "submission.json"
    file.write_text(re.sub(r'"at": [\d.]+', '"at": 1000.0', file.read_text()))
    for number in range(6):
        _record(run, f"tile-{number}", {"job": "101", "ended": time.time(), "code": 0})
    return run


def test_jobs_tells_how_it_goes(cluster: Cluster, pathpipe: Command, submitted: Path) -> None:
    run, now = submitted, time.time()
    _record(run, "extract-0", {"started": now - 1800, "ended": now - 900, "code": 0})
    _record(run, "extract-1", {"ended": now, "code": 1})  # a bad slide
    _record(run, "extract-2", {"ended": now, "code": 75, "told": "SIGTERM"})  # preempted: waits once more
    _record(run, "extract-3", {})  # at work
    _record(run, "extract-4", {})  # killed: no end, and not in the queue
    (run / "jobs" / "0001" / "logs" / "extract-1.log").write_text("tile S1 done\nfailed: extract S1: is damaged\nend\n")
    (run / "jobs" / "0001" / "logs" / "extract-4.log").write_text("a\nslurmstepd: error: *** JOB 9 KILLED ***\n\n")
    _receipt(run, "S0", "done")
    _receipt(run, "S1", "failed")
    waiting = [f"103|{number}|PENDING|Dependency" for number in range(6)]
    cluster.holds(
        "102|2|PENDING|BeginTime", "102|3|RUNNING|None", "102|5|PENDING|Resources", "9|0|RUNNING|None", *waiting
    )

    code, out, err = pathpipe("jobs", run)
    assert code == 1
    assert [line.split("\t")[:8] for line in out.splitlines()] == [
        ["step", "pending", "running", "requeued", "done", "failed", "lost", "units"],
        ["tile", "0", "0", "0", "6", "0", "0", "0/6"],
        ["extract", "1", "1", "1", "1", "1", "1", "1/6, 1 failed"],
        ["embed", "6", "0", "0", "0", "0", "0", "0/6"],
    ]
    logs = run / "jobs" / "0001" / "logs"
    assert f"failed: extract 1: failed: extract S1: is damaged\n  {logs}/extract-1.log" in err
    assert f"lost: extract 4: slurmstepd: error: *** JOB 9 KILLED ***\n  {logs}/extract-4.log" in err

    code, out, _ = pathpipe("jobs", run, "--json")
    extract = json.loads(out)["steps"][1]
    assert [one["state"] for one in extract["elements"]] == ["done", "failed", "requeued", "running", "lost", "pending"]
    assert extract["per_hour"] == pytest.approx(2, rel=0.01)  # one slide in half an hour
    assert extract["hours_left"] == pytest.approx(2, rel=0.01)  # four more to make
    assert extract["elements"][2]["why"] == "BeginTime" and extract["elements"][3]["host"] == "n7"


def test_what_failed_is_submitted_again_and_what_follows(cluster: Cluster, pathpipe: Command, submitted: Path) -> None:
    run, now = submitted, time.time()
    for number in range(6):
        _record(run, f"extract-{number}", {"ended": now, "code": 0})
    _record(run, "extract-1", {"ended": now, "code": 2})
    _record(run, "extract-4", {})
    _record(run, "extract-5", {})
    cluster.holds("102|5|RUNNING|None", *(f"103|{number}|PENDING|Dependency" for number in range(6)))
    code, _, err = pathpipe("jobs", run, "--resubmit")
    assert code == 0, err
    assert "submitted again: extract 2, embed 6" in err
    jobs = run / "jobs" / "0001"
    assert cluster.asked[3:] == [
        "scancel " + " ".join(f"103_{number}" for number in range(6)),
        f"sbatch --parsable --array=1,4 {jobs}/extract.sbatch",
        f"sbatch --parsable --array=0-5 --dependency=afterok:104:102_5 {jobs}/embed.sbatch",
    ]
    cluster.holds("102|5|RUNNING|None", "104|1|PENDING|Priority", "104|4|RUNNING|None")
    _, out, _ = pathpipe("jobs", run, "--json")
    assert [one["state"] for one in json.loads(out)["steps"][1]["elements"]] == [
        "done",
        "pending",
        "done",
        "done",
        "running",
        "running",
    ]
    assert json.loads(out)["steps"][1]["jobs"] == ["102", "104"]


def test_nothing_to_submit_again(cluster: Cluster, pathpipe: Command, submitted: Path) -> None:
    cluster.holds(*(f"{job}|{number}|PENDING|None" for job in (102, 103) for number in range(6)))
    code, _, err = pathpipe("jobs", submitted, "--resubmit")
    assert code == 2 and "nothing of it has failed or was lost" in err and len(cluster.asked) == 3


def test_a_queue_that_cant_be_asked_leaves_it_open(cluster: Cluster, pathpipe: Command, submitted: Path) -> None:
    (cluster.folder / "squeue").write_text("#!/bin/sh\nexit 1\n")
    _record(submitted, "extract-3", {})
    code, out, _ = pathpipe("jobs", submitted, "--json")
    states = {step["name"]: [one["state"] for one in step["elements"]] for step in json.loads(out)["steps"]}
    assert code == 0 and states["tile"] == ["done"] * 6 and states["extract"] == ["unknown"] * 6
    code, _, err = pathpipe("jobs", submitted, "--resubmit")
    assert code == 2 and "the queue can't be asked" in err
