"""Encoding as people run it: several encoders decode once, a resumed one gives the same bytes, the closing line."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.integration.conftest import SMALL, Call, write_slide

TINY = "timm:test_vit"


def _weights(folder: Path) -> Path:
    torch.manual_seed(0)
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    folder.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
    return folder


def test_several_encoders_in_one_pass(pathpipe: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATHPIPE_WEIGHTS_DIR", str(tmp_path / "weights"))
    _weights(tmp_path / "weights" / "timm-test_vit")
    for number in range(2):
        write_slide(tmp_path / "slides" / f"S{number}.svs", seed=number)
    both, alone = tmp_path / "both", tmp_path / "alone"
    done = pathpipe("extract", tmp_path / "slides", "-o", both, *SMALL, "--with-encoders", TINY)
    assert "extract timm:test_vit: 2 current" in done.stderr, "made along with the first, found by the second pass"
    assert "bottleneck: forward" in done.stderr and "decode" in done.stderr
    pathpipe("extract", tmp_path / "slides", "-o", alone, *SMALL, "--encoder", TINY)
    for slide in ("S0", "S1"):
        paths = [run / "features" / "timm-test_vit" / f"{slide}.h5" for run in (both, alone)]
        with h5py.File(paths[0]) as one, h5py.File(paths[1]) as other:
            assert np.array_equal(one["features"][:], other["features"][:])
            assert one.attrs["provenance"] == other.attrs["provenance"]
        with h5py.File(both / "features" / "efficientnet-lite0" / f"{slide}.h5") as file:
            assert file["features"].shape[1] == 1280


def test_a_gpu_that_is_not_there_is_said_before_any_slide(pathpipe: Call, tmp_path: Path) -> None:
    write_slide(tmp_path / "slides" / "S.svs", seed=0)
    done = pathpipe("extract", tmp_path / "slides", "-o", tmp_path / "run", *SMALL, "--gpus", "0,99", check=None)
    assert done.returncode == 3 and "was asked for, torch sees" in done.stderr
    assert not (tmp_path / "run" / "tiles").exists()
