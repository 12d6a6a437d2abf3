"""Training by the command: killed and gone on with, several folds at once, one fold in several processes."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tests.integration.conftest import Call, environment

FOLDS = ("--folds", "3", "--patience", "100")
FILES = ("model.pt", "predictions.csv", "history.csv", "provenance.json")


def _copy(extracted: Path, tmp_path: Path, name: str) -> Path:
    run = tmp_path / name
    shutil.copytree(extracted, run)
    return run


def _start(run: Path, *options: object, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *(launcher or ()), "pathpipe", "train", str(run), *map(str, options)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _made(run: Path) -> dict[str, str]:
    folders = sorted((run / "train").glob("*/fold-*"))
    return {
        f"{folder.name}/{name}": hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for folder in folders
        for name in FILES
    }


def _states(run: Path) -> dict[str, int]:
    found = {}
    for path in (run / "train").glob("*/.fold-*.state"):
        try:
            found[path.name] = path.stat().st_mtime_ns
        except FileNotFoundError:  # served since the listing
            continue
    return found


def test_killed_in_the_middle_of_training(pathpipe: Call, extracted: Path, tmp_path: Path) -> None:
    options = (*FOLDS, "--epochs", "15", "--average", "0.9", "--instance-dropout", "0.2", "--save-every-s", "0")
    run = _copy(extracted, tmp_path, "undisturbed")
    pathpipe("train", run, *options)
    expected = _made(run)
    assert len(expected) == 12

    run = _copy(extracted, tmp_path, "killed")
    inside = 0
    for number in range(3):
        before = _states(run)
        process = _start(run, *options)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline and _states(run) == before:
            time.sleep(0.002)
        time.sleep(0.1 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        inside += bool(_states(run))
        assert _made(run).items() <= expected.items(), "a half-made fold was visible"
    assert inside >= 2, "no kill fell inside a training: the test showed nothing"
    pathpipe("train", run, *options)
    assert _made(run) == expected
    assert not _states(run) and not list(run.rglob("*.partial*"))


def test_folds_side_by_side_and_logs_change_nothing(pathpipe: Call, extracted: Path, tmp_path: Path) -> None:
    made: list[dict[str, str]] = []
    for options in (("--workers", 1), ("--workers", 2, "--log", "tensorboard")):
        run = _copy(extracted, tmp_path, f"{len(made)}")
        pathpipe("train", run, *FOLDS, "--epochs", "3", *options)
        made.append(_made(run))
    assert made[0] == made[1] and len(made[0]) == 12
    events = list((run / "logs").rglob("events.out.tfevents.*"))
    assert len(events) == 3 and not [path for path in (run / "train").rglob("*") if "tfevents" in path.name]


def _logits(run: Path) -> np.ndarray:
    tables = [pd.read_csv(path) for path in sorted((run / "train").glob("*/fold-*/predictions.csv"))]
    table = pd.concat(tables)
    return table[[name for name in table.columns if name.startswith("logit_")]].to_numpy()


def test_torchrun_shares_a_fold(pathpipe: Call, extracted: Path, tmp_path: Path) -> None:
    common = (*FOLDS, "--epochs", "4", "-s", "dropout=0.0", "-s", "hidden=16", "--lr", "0.01", "--optimiser", "sgd")
    whole = _copy(extracted, tmp_path, "whole")
    pathpipe("train", whole, *common, "--batch-size", "4")
    shared = _copy(extracted, tmp_path, "shared")
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    process = _start(shared, *common, "--batch-size", "2", "--accumulate", "2", launcher=launcher)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    np.testing.assert_allclose(_logits(shared), _logits(whole), rtol=1e-4, atol=1e-5)
    assert said.count("train fold-0-seed-0 done") == 1


def test_sweep_leaves_settings_that_train_and_no_prediction_of_a_test_patient(
    pathpipe: Call, extracted: Path, tmp_path: Path
) -> None:
    run = _copy(extracted, tmp_path, "swept")
    space = ("--models", "abmil", "--models", "mean", "--space", "lr={low: 1.0e-4, high: 1.0e-2, log: true}")
    done = pathpipe("sweep", run, *FOLDS, "--epochs", "2", "--trials", "2", *space)
    header, *rows = done.stdout.splitlines()
    assert header.split("\t")[:3] == ["trial", "state", "auroc"] and len(rows) == 2
    assert not (run / "train").exists() and not list(run.rglob("predictions*.csv"))
    best = next((run / "sweeps").glob("*/best.yaml"))
    assert f"--config {best}" in done.stderr
    printed = pathpipe("train", run, "--config", best, "--print-config").stdout
    assert f"# {best}" in printed and "epochs: 2" in printed
