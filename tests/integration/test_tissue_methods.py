"""Ways of finding tissue from the command line: cytology by its configuration, a network of one's own, slips."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pathpipe.cli.app import main
from pathpipe.errors import SettingsError
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.settings import RunSettings
from pathpipe.slides.writer import shrink, write_svs
from pathpipe.stages import train
from pathpipe.stages.predict import Ensemble
from pathpipe.tiles.table import read_tiles
from pathpipe.tissue.method import METHODS, tissue_method
from tests.conftest import ROOT
from tests.integration.conftest import SMALL, Call, write_slide
from tests.unit.tissue.test_methods import cytology_slide
from tests.unit.tissue.test_methods_network import exported


def run(arguments: list[str], code: int) -> None:
    """The command line in this process."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == code


def test_cytology_configuration_keeps_a_tile_around_every_cell(pathpipe: Call, tmp_path: Path) -> None:
    picture, centres = cytology_slide(2016, singles=20)
    write_svs(tmp_path / "smear.svs", [picture, shrink(picture, 4)], 0.5, objective=20)
    config = ROOT / "configs" / "cytology.yaml"
    pathpipe("tile", tmp_path / "smear.svs", "-o", tmp_path / "run", "--config", config)
    grid = read_tiles(tmp_path / "run" / "tiles" / "smear.h5").grid
    inside = (centres[:, None] >= grid.xy0[None]) & (centres[:, None] < grid.xy0[None] + 224)
    assert np.logical_and.reduce(np.logical_or.reduce(inside.all(axis=2), axis=1))
    full = (2016 // 224) ** 2
    assert 15 < len(grid.xy0) < 0.8 * full, "bare glass has no tiles"


def test_a_network_is_known_by_its_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_slide(tmp_path / "S1.svs", seed=1)
    network = exported(tmp_path / "net.pt")
    options = ["mpp=8", "tile_px=64", "overlap_px=8", "mean=[0.5,0.4,0.6]", "std=[0.2,0.3,0.25]"]
    flags = [part for option in options for part in ("--method-settings", option)]
    base = ("tile", str(tmp_path / "S1.svs"), "-o", str(tmp_path / "run"), *SMALL, "--method", "torchscript", *flags)
    run([*base, "--method-settings", f"file={network}"], 0)
    made = read_provenance(tmp_path / "run" / "tissue" / "S1.geojson")
    assert made is not None and len(made.inputs["method"]) == 64
    assert "file" not in made.settings["tissue"]["method_settings"]
    assert str(tmp_path) not in (tmp_path / "run" / "tissue" / "S1.geojson").read_text()
    assert len(read_tiles(tmp_path / "run" / "tiles" / "S1.h5").grid.xy0) >= 4
    moved = shutil.move(network, tmp_path / "moved.pt")
    capsys.readouterr()
    run([*base, "--method-settings", f"file={moved}"], 0)
    assert "done" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--method", "clamm"), 2, "did you mean `clam`?"),
        (("--method-settings", "treshold=3"), 2, "did you mean `threshold`?"),
        (("--method", "clam", "--method-settings", "preset=tgca"), 2, "preset"),
        (("--method", "onnx", "--method-settings", "file=no.onnx", "--method-settings", "mpp=8"), 3, "no such network"),
    ],
)
def test_slips_are_refused_before_any_slide_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "S1.svs").write_text("never opened")
    run(["tile", str(tmp_path / "S1.svs"), "-o", str(tmp_path / "run"), *flags], code)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "run").glob("receipts/*/*"))


def test_methods_are_listed_with_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    run(["tissue-methods", "--form", "csv"], 0)
    listed = capsys.readouterr().out
    assert [line.partition(",")[0] for line in listed.splitlines()[1:]] == METHODS.names()
    run(["tissue-methods", "clam", "--form", "csv"], 0)
    shown = capsys.readouterr().out
    assert "--method-settings a_t=100.0," in shown and "--method-settings sthresh=8," in shown
    run(["tissue-methods", "onnx", "--form", "csv"], 0)
    assert "--method-settings file=...," in capsys.readouterr().out
    run(["models", "abmil", "--form", "csv"], 0)
    assert "-s hidden=512," in capsys.readouterr().out


def test_prediction_asks_for_the_network_that_found_the_tissue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, other = exported(tmp_path / "net.pt"), exported(tmp_path / "other.pt", "indices")
    options = {"file": str(network), "mpp": 8, "tile_px": 64, "overlap_px": 8}
    settings = RunSettings.model_validate({"tissue": {"method": "torchscript", "method_settings": options}})
    digest = tissue_method("torchscript", options).fingerprint()
    made = Provenance("extract", 1, {}, {"method": digest})
    monkeypatch.setattr(train, "feature_files", lambda run, settings: {"S1": tmp_path / "S1.h5"})
    monkeypatch.setattr(train, "read_provenance", lambda path: made)
    job: Any = SimpleNamespace(run=None, settings=settings)
    kept = train._preprocessing(job)
    assert kept["tissue"]["method_settings"] == {"mpp": 8, "tile_px": 64, "overlap_px": 8, "sha256": digest}
    checkpoint: Any = SimpleNamespace(preprocessing=kept, encoder={"transform": ""})
    ensemble = Ensemble((checkpoint,))
    with pytest.raises(SettingsError, match="found by a network"):
        ensemble.settings({}, None)
    same = ensemble.settings({}, None, str(network)).tissue
    tissue_method(same.method, same.method_settings).preflight(8.0)
    wrong = ensemble.settings({}, None, str(other)).tissue
    with pytest.raises(SettingsError, match="not the one in the option `sha256`"):
        tissue_method(wrong.method, wrong.method_settings).preflight(8.0)
