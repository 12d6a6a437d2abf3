"""`pathpipe embed`: a vector a slide from a run's features; a refusal where features and slide encoder don't fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np

from tests.integration.conftest import Call


def test_embeddings_of_a_run(pathpipe: Call, extracted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(extracted, run)
    pathpipe("embed", run, "--slide-encoder", "mean-std", "--workers", "1")
    made = sorted((run / "embeddings" / "efficientnet-lite0" / "mean-std").iterdir())
    assert [path.name for path in made] == [f"S{number:02d}.h5" for number in range(11)]
    for path in made:
        with h5py.File(run / "features" / "efficientnet-lite0" / path.name) as file:
            rows = file["features"][:].astype(np.float64)
        with h5py.File(path) as file:
            assert np.allclose(file["features"][:], np.concatenate([rows.mean(0), rows.std(0)]), atol=1e-5)
    assert (run / "receipts" / "embed" / "S00.json").exists()
    refused = pathpipe("embed", run, "--slide-encoder", "prism", check=2)
    assert "needs features of `virchow`, these are of `efficientnet-lite0`" in refused.stderr
    assert "--encoder virchow --mpp 0.5 --tile-px 224" in refused.stderr
