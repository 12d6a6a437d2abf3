"""Ways of finding tissue from the command line: cytology by its configuration, a network of one's own, slips."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pathpipe.cli.app import main
from pathpipe.provenance import read_provenance
from pathpipe.slides.writer import shrink, write_svs
from pathpipe.tiles.table import read_tiles
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
