"""Tiles, regions and stains through the chain: what another tool laid is what is encoded, and what a model repeats."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from pathpipe.cohort import Cohort
from pathpipe.encoders.stain import stain_target
from pathpipe.errors import SettingsError
from pathpipe.execution.receipt import Receipt, read_receipt
from pathpipe.execution.worker import work
from pathpipe.provenance import read_provenance
from pathpipe.run import Run
from pathpipe.settings import ExtractSettings, RunSettings, merge
from pathpipe.stages.predict import Ensemble
from pathpipe.stages.verify import VerifyRequest, verify_files
from pathpipe.store.features import Features, read_features
from tests.integration.conftest import write_slide

ENCODER = "efficientnet-lite0"
TILE = {"mpp": 0.5, "tile_px": 112}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    write_slide(folder / "S1.svs", seed=1)
    return folder


def _settings(tile: dict[str, Any], extract: dict[str, Any] | None = None, **execution: Any) -> RunSettings:
    values = {"tile": tile, "tissue": {"min_area_um2": 2000.0}, "extract": extract or {}, "execution": execution}
    return merge(RunSettings, [("test", values)])[0]


def _made(run: Run, settings: RunSettings) -> Features:
    receipts = work(run, ["tissue", "tile", "extract"], settings, "S1")
    assert [one.state for one in receipts if not one.ok] == [], receipts[-1].reason
    return read_features(run.features(ENCODER, "S1"))


def _tile(run: Run, settings: RunSettings) -> Receipt:
    return work(run, ["tissue", "tile"], settings, "S1")[-1]


@pytest.fixture(scope="module")
def native(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Features:
    run = Run.create(tmp_path_factory.mktemp("native") / "run", Cohort.read(slides))
    return _made(run, _settings(TILE))


def _write_trident(path: Path, xy0: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        coords = file.create_dataset("coords", data=xy0, chunks=(1, 2), maxshape=(None, 2))
        coords.attrs.update({"patch_size": 112, "patch_size_level0": 112, "overlap": 0, "name": "S1"})
        coords.attrs.update({"level0_magnification": 20, "target_magnification": 20})


def test_coordinates_of_another_tool_give_the_same_features(slides: Path, native: Features, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(len(native.xy0))[: len(native.xy0) - 2]
    path = tmp_path / "coords" / "patches" / "S1_patches.h5"
    _write_trident(path, native.xy0[order])
    run = Run.create(tmp_path / "run", Cohort.read(slides))
    given = _settings({**TILE, "coords_dir": str(tmp_path / "coords")})
    found = _made(run, given)
    assert np.array_equal(found.xy0, native.xy0[order]), "in the order of the file"
    same = native.features[order].astype(np.float32)
    np.testing.assert_allclose(found.features.astype(np.float32), same, rtol=2e-3, atol=2e-3)
    made = read_provenance(run.tiles("S1"))
    assert made is not None and made.inputs["coords"].startswith("TRIDENT ")
    assert "coords_dir" not in made.settings["tile"], "known by content, not by place"
    assert _tile(run, given).state == "current"
    _write_trident(path, native.xy0[order[:3]])
    stale = _tile(run, given)
    assert stale.state == "stale" and "input.coords: TRIDENT" in (stale.reason or "")
    path.unlink()
    missing = _tile(run, given)
    assert missing.state == "failed" and "S1: there are no coordinates for it in" in (missing.reason or "")


def test_another_resolution_is_said(slides: Path, native: Features, tmp_path: Path) -> None:
    _write_trident(tmp_path / "coords" / "S1.h5", native.xy0)
    run = Run.create(tmp_path / "run", Cohort.read(slides))
    receipt = _tile(run, _settings({"mpp": 0.5, "tile_px": 56, "coords_dir": str(tmp_path / "coords")}))
    assert receipt.state == "done" and receipt.reason == "tiles have 1 um/px as their TRIDENT file says, not 0.5"


def test_regions_go_from_tiles_to_features(slides: Path, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Cohort.read(slides))
    tile = {"mpp": 0.5, "tile_px": 56, "region_tiles": 3, "border": "pad", "max_tiles": 30}
    found = _made(run, _settings(tile))
    regions = found.regions
    assert regions is not None and regions.side == 3 and len(regions.xy0) == 3
    assert regions.index.tolist() == np.repeat([0, 1, 2], 9).tolist() and len(found.features) == 27
    assert np.array_equal(found.xy0.reshape(3, 9, 2)[:, 0], regions.xy0)
    with h5py.File(run.features(ENCODER, "S1")) as file:
        assert file["region"].dtype == np.int32 and file["regions"].dtype == np.int64
        assert file["regions"].attrs["tiles_per_side"] == 3


def test_stained_features_are_others_and_a_model_repeats_them(slides: Path, native: Features, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Cohort.read(slides))
    settings = _settings(TILE, {"stain": "macenko"}, tiles_per_batch=5)
    found = _made(run, settings)
    assert np.array_equal(found.xy0, native.xy0)
    assert np.abs(found.features.astype(np.float32) - native.features.astype(np.float32)).max() > 0.05
    target = stain_target(settings.extract)
    assert target is not None and found.encoder["transform"].startswith(f"stain {target.text}; ")
    assert found.encoder["transform"].endswith(native.encoder["transform"])
    receipt = read_receipt(run, "extract", "S1")
    assert receipt is not None and 0 <= receipt.counts["tiles left as stained"] < len(found.xy0)

    (verdict,) = verify_files([run.features(ENCODER, "S1")], run.cohort, VerifyRequest())
    assert (verdict.state, verdict.note) == ("same", ""), "the same normalisation is done when rows are encoded again"

    kept = settings.model_dump(mode="json", exclude={"extract": {"weights", "stain_target"}})
    made = {name: kept[name] for name in ("slide", "tissue", "tile", "extract")}
    model = Ensemble((SimpleNamespace(preprocessing=made, encoder=found.encoder),))  # type: ignore[arg-type]
    again = model.settings({}, None)
    assert again.extract.stain_target == target.text and stain_target(again.extract) == target


def test_a_model_of_foreign_tiles_asks_for_those_of_new_slides(tmp_path: Path) -> None:
    made = _settings(TILE).model_dump(mode="json", include={"slide", "tissue", "tile", "extract"})
    made["tile"]["coords_dir"] = "given"
    encoder = {"transform": "resize 224"}
    model = Ensemble((SimpleNamespace(preprocessing=made, encoder=encoder),))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="--coords-dir: the tiles of the model's slides were laid by another tool"):
        model.settings({}, None)
    assert model.settings({}, None, folders={"coords_dir": str(tmp_path)}).tile.coords_dir == str(tmp_path)
    assert (
        ExtractSettings().stain
        == model.settings({}, None, folders={"coords_dir": str(tmp_path)}).extract.stain
        == "none"
    )


@pytest.mark.parametrize(
    ("section", "name", "was"),
    [
        ("tile", "include", "had tiles in regions only"),
        ("tile", "exclude", "had no tiles in some regions"),
        ("tissue", "mask_dir", "was outlined for them"),
    ],
)
def test_a_model_of_slides_with_something_given_asks_for_that_of_new_ones(
    tmp_path: Path, section: str, name: str, was: str
) -> None:
    made = _settings(TILE).model_dump(mode="json", include={"slide", "tissue", "tile", "extract"})
    encoder = {"transform": "resize 224"}
    free = Ensemble((SimpleNamespace(preprocessing=made, encoder=encoder),))  # type: ignore[arg-type]
    assert getattr(getattr(free.settings({}, None), section), name) is None
    limited = {**made, section: {**made[section], name: "given"}}
    model = Ensemble((SimpleNamespace(preprocessing=limited, encoder=encoder),))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')}: the .*model's slides {was}"):
        model.settings({}, None)
    given = model.settings({}, None, folders={name: str(tmp_path)})
    assert getattr(getattr(given, section), name) == str(tmp_path)
    assert getattr(getattr(model.settings({}, None, folders={name: "none"}), section), name) is None


def test_a_model_of_regions_of_one_class_does_without_them(tmp_path: Path) -> None:
    made = _settings(TILE).model_dump(mode="json", include={"slide", "tissue", "tile", "extract"})
    made["tile"] |= {"include": "given", "include_class": "Tumour", "min_roi": 0.9}
    model = Ensemble((SimpleNamespace(preprocessing=made, encoder={"transform": "resize 224"}),))  # type: ignore[arg-type]
    assert model.settings({}, None, folders={"include": str(tmp_path)}).tile.include_class == "Tumour"
    without = model.settings({}, None, folders={"include": "none"}).tile
    assert (without.include, without.include_class, without.min_roi) == (None, None, 0.5)
