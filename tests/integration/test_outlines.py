"""Outlines and regions a person gives, through `pathpipe tile`; and the contact sheet it ends with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from pathpipe.cli.app import main
from pathpipe.provenance import read_provenance
from pathpipe.slides.writer import SvsFormat, write_svs

TILE = 64
SETTINGS = ("--mpp", "0.5", "--tile-px", str(TILE), "--tissue-mpp", "4", "--min-area-um2", "0", "--blur", "off")


def _tile(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["tile", *map(str, arguments), "--workers", "1"])
    shown = capsys.readouterr().err
    assert stop.value.code == code, shown
    return " ".join(shown.split())


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """S1 and S2, 512 x 512 px at 0.5 um/px: pink from (128, 128) to (384, 384)."""
    pixels = np.full((512, 512, 3), 244, np.uint8)
    pixels[128:384, 128:384] = (200, 120, 170)
    (tmp_path / "slides").mkdir()
    for name in ("S1", "S2"):
        write_svs(tmp_path / "slides" / f"{name}.svs", [pixels], 0.5, 20, SvsFormat(quality=None, tile_px=64))
    return tmp_path / "slides"


def _write(path: Path, *boxes: tuple[int, int, int, int], name: str = "Tumor") -> Path:
    path.parent.mkdir(exist_ok=True)
    features: list[Any] = []
    for x0, y0, x1, y1 in boxes:
        ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
        properties = {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 0]}}
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "id": "x", "geometry": geometry, "properties": properties})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path.parent


def _tiles(run: Path, name: str) -> list[list[int]]:
    with h5py.File(run / "tiles" / f"{name}.h5") as file:
        return (file["coords"][:] // TILE).tolist()


BLOCK = [[x, y] for y in range(2, 6) for x in range(2, 6)]


def test_given_tissue_replaces_detection_where_it_is_given(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, run = _write(tmp_path / "masks" / "S1.geojson", (0, 0, 128, 64), (448, 448, 512, 480)), tmp_path / "run"
    _tile(capsys, slides, "-o", run, *SETTINGS, "--mask-dir", masks)
    assert _tiles(run, "S1") == [[0, 0], [1, 0], [7, 7]] and _tiles(run, "S2") == BLOCK
    with h5py.File(run / "tiles" / "S1.h5") as file:
        assert file["tissue"][:].tolist() == [1, 1, 0.5]
    receipt = json.loads((run / "receipts" / "tissue" / "S1.json").read_text())
    assert receipt["reason"] == "outlines as given" and receipt["counts"]["tissue_mm2"] == 0.0026
    made, other = (read_provenance(run / "tissue" / f"{name}.geojson") for name in ("S1", "S2"))
    assert made is not None and len(made.inputs["mask"]) == 64
    assert other is not None and "mask" not in other.inputs
    for artefact in (run / "tissue" / "S1.geojson", run / "tiles" / "S1.h5", run / "contact_sheet.jpg"):
        assert str(tmp_path).encode() not in artefact.read_bytes(), "no path of the machine"

    # the same outlines elsewhere are the same; others are not
    shutil.move(masks, tmp_path / "moved")
    assert "done" not in _tile(capsys, run, "--mask-dir", tmp_path / "moved")
    _write(tmp_path / "moved" / "S1.geojson", (0, 0, 64, 64))
    assert "input.mask" in _tile(capsys, run, code=2), "the folder is remembered, its file has changed"
    _tile(capsys, run, "--stale", "remake")
    assert _tiles(run, "S1") == [[0, 0]]
    shutil.rmtree(tmp_path / "moved")
    assert "done" not in _tile(capsys, run), "archived away since"


def test_a_plan_counts_what_given_outlines_lead_to(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = _write(tmp_path / "masks" / "S1.geojson", (0, 0, 128, 64), (448, 448, 512, 480))
    options = [str(slides), *SETTINGS, "--no-probe", "--json", "--workers", "1", "--exclude", str(masks)]
    with pytest.raises(SystemExit):
        main(["plan", *options, "--mask-dir", str(masks), "--max-excluded", "0.6"])
    planned = json.loads(capsys.readouterr().out)["slides"]
    assert [one["tiles"] for one in planned] == [1, 16], "of S1, the tile that lies by half in the excluded region"
    (masks / "S1.geojson").write_text("{")
    with pytest.raises(SystemExit) as stop:
        main(["plan", *options])
    assert stop.value.code == 2 and "conflict: S1: given: " in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["plan", *options, "--include", str(slides)])
    assert stop.value.code == 2 and "no file for any slide" in capsys.readouterr().err


def test_an_edit_in_the_run_itself_changes_the_tiles(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    _tile(capsys, slides, "-o", run, *SETTINGS)
    path = run / "tissue" / "S2.geojson"
    content = json.loads(path.read_text())
    content["features"] = json.loads(_edited(tmp_path).read_text())["features"]
    path.write_text(json.dumps(content))
    assert "settings" not in _tile(capsys, run, code=2)
    _tile(capsys, run, "--stale", "remake")
    assert _tiles(run, "S2") == [[4, 1], [5, 1]] and _tiles(run, "S1") == BLOCK
    assert json.loads(path.read_text()) == content, "the person's outlines are left as they are"

    # exported by QuPath over the run's own file: refused, and not lost
    shutil.copy(_edited(tmp_path), path)
    shown = _tile(capsys, run, code=1)
    assert "another program wrote" in shown and "--mask-dir" in shown
    assert path.read_bytes() == _edited(tmp_path).read_bytes()
    with Image.open(run / "contact_sheet.jpg") as sheet:
        assert np.abs(np.asarray(sheet)[34 + 150, 20].astype(int) - 225).max() < 3, "the failed one is grey, and first"


def _edited(tmp_path: Path) -> Path:
    return _write(tmp_path / "edited" / "any.geojson", (256, 64, 384, 128), name="Tissue") / "any.geojson"


def test_regions_choose_among_tiles_with_tissue(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    include = _write(tmp_path / "include" / "S1.geojson", (0, 0, 288, 512))
    exclude = _write(tmp_path / "exclude" / "S1.geojson", (128, 128, 200, 192), (0, 0, 5, 5), name="Fold")
    run = tmp_path / "run"
    shown = _tile(capsys, slides, "-o", run, *SETTINGS, "--include", include, "--exclude", exclude)
    # include ends in the middle of column 4: half is enough; the excluded box touches tiles (2, 2) and (3, 2)
    assert _tiles(run, "S1") == [[x, y] for y in range(2, 6) for x in (2, 3, 4) if (x, y) not in ((2, 2), (3, 2))]
    assert "empty: tile S2: no region to include was given for it" in shown and _tiles(run, "S2") == []
    made = read_provenance(run / "tiles" / "S2.h5")
    assert made is not None and made.inputs["include"] == "" and made.inputs["exclude"] == ""
    _tile(capsys, run, "--stale", "remake", "--min-roi", "0.6", "--max-excluded", "0.2", "--exclude-class", "fold")
    assert _tiles(run, "S1") == [[x, y] for y in range(2, 6) for x in (2, 3) if (x, y) != (2, 2)]
    _tile(capsys, run, "--stale", "remake", "--include", "", "--exclude-class", "Pen")
    assert _tiles(run, "S1") == BLOCK and _tiles(run, "S2") == BLOCK
    _tile(capsys, run, "--stale", "remake", "--exclude", "", code=2)
    _tile(capsys, run, "--stale", "remake", "--exclude", "", "--exclude-class", "")


def test_pages_come_and_go_with_the_cohort(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pathpipe.report.contact_sheet.PER_PAGE", 1)
    run = tmp_path / "run"
    (slides / "S3.svs").touch()
    _tile(capsys, slides, "-o", run, *SETTINGS, code=1)
    names = ["contact_sheet.jpg", "contact_sheet-2.jpg", "contact_sheet-3.jpg"]
    assert {path.name for path in run.glob("contact*")} == set(names)
    first, second = (read_provenance(run / name) for name in names[:2])
    assert first is not None and first == second and first.stage == "contact-sheet"
    (run / names[1]).unlink()
    assert "contact-sheet done" in _tile(capsys, run, code=1) and (run / names[1]).exists()
    (run / names[0]).write_bytes((run / names[0]).read_bytes()[:5000])
    assert "contact-sheet done" in _tile(capsys, run, code=1)
    (slides / "S3.svs").unlink()
    _tile(capsys, slides, "-o", run)
    assert {path.name for path in run.glob("contact*")} == set(names[:2])


def test_a_folder_that_cannot_be_meant_stops_at_once(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--mask-dir", "--include", "--exclude"):
        wrong = _tile(capsys, slides, "-o", tmp_path / "run", *SETTINGS, option, slides, code=2)
        assert f"{option} {slides}: holds no file for any slide of the cohort" in wrong
        assert "no such folder" in _tile(capsys, slides, "-o", tmp_path / "run", option, "nowhere", code=2)
    assert not (tmp_path / "run" / "tissue").exists() and not (tmp_path / "run" / "settings.yaml").exists()
    _tile(capsys, slides, "-o", tmp_path / "run", *SETTINGS)
    saved = (tmp_path / "run" / "settings.yaml").read_text()
    _tile(capsys, tmp_path / "run", "--include", slides, "--stale", "remake", code=2)
    assert (tmp_path / "run" / "settings.yaml").read_text() == saved, "what is refused isn't remembered"


def test_the_contact_sheet_shows_failed_slides_and_is_made_anew_by_itself(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (slides / "S3.svs").write_bytes(b"no slide")
    shown = _tile(capsys, slides, "-o", run, *SETTINGS, code=1)
    assert "contact-sheet done, 3 slides" in shown
    with Image.open(run / "contact_sheet.jpg") as sheet:
        assert sheet.size == (3 * 256 + 8, 34 + 292 + 8)
        before = np.asarray(sheet).astype(int)
    assert np.abs(before[34 + 150, 20] - 225).max() < 3, "S3 comes first, grey"
    picture = before[34 + 100, 8 + 256 + 120]
    assert picture[0] > picture[1] + 30, "S1's tissue is pink"
    stamp = (run / "contact_sheet.jpg").stat().st_mtime_ns
    _tile(capsys, run, code=1)
    assert (run / "contact_sheet.jpg").stat().st_mtime_ns == stamp, "nothing has changed"

    shutil.copy(slides / "S1.svs", slides / "S3.svs")
    assert "contact-sheet done" in _tile(capsys, run)
    with Image.open(run / "contact_sheet.jpg") as sheet:
        assert np.abs(np.asarray(sheet).astype(int)[34 + 100, 8 + 120] - picture).max() < 30
