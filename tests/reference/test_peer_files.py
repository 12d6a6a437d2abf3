"""Files that the peers themselves write and read, both ways. Skipped where a peer isn't installed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pathpipe.store.convert import Conversion, convert_files
from pathpipe.store.features import read_features, write_features
from pathpipe.store.layouts.detect import read_any
from pathpipe.store.origins import one_mpp
from pathpipe.testing.slides import position_slide
from tests.unit.store.test_store import ENCODER, PROVENANCE, _features, _table

# the peers' own warnings are theirs
pytestmark = pytest.mark.filterwarnings("ignore")


def _converted(tmp_path: Path, layout: str, source: Path | None = None) -> tuple[Path, ...]:
    if source is None:
        source = tmp_path / "S1.h5"
        write_features(source, _features(23), _table(23), ENCODER, PROVENANCE)
    (done,) = convert_files([source], Conversion(layout, tmp_path / layout, origin=one_mpp(0.499), encoder="resnet50"))
    assert done.error is None, done.error
    return done.files


def test_anndata_reads_ours_and_writes_it_again(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    (path,) = _converted(tmp_path, "anndata")
    table = anndata.read_h5ad(path)
    assert np.array_equal(table.X, _features(23)) and table.X.dtype == np.float16
    assert np.array_equal(table.obsm["spatial"], _table(23).grid.xy0)
    assert table.obs_names[22] == "S1-22" and table.obs["x0"].tolist() == _table(23).grid.xy0[:, 0].tolist()
    assert json.loads(table.uns["pathpipe"])["encoder"]["name"] == "vit"
    table.write_h5ad(tmp_path / "again.h5ad")
    back = _converted(tmp_path, "native", tmp_path / "again.h5ad")[0]
    assert back.read_bytes() == (tmp_path / "S1.h5").read_bytes()


def test_anndata_of_others_is_read(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    values, xy0 = _features(23, "float32"), _table(23).grid.xy0
    anndata.AnnData(values, obsm={"spatial": xy0}).write_h5ad(tmp_path / "S1.h5ad")
    (found,) = read_any(tmp_path / "S1.h5ad")
    assert np.array_equal(found.features, values) and found.places is not None
    assert np.array_equal(found.places.xy, xy0) and found.places.side is None


@pytest.fixture(scope="module")
def wsi(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """What LazySlide makes of a slide: its Zarr, the features put in, and the places of its tiles."""
    wsidata, lazyslide = pytest.importorskip("wsidata"), pytest.importorskip("lazyslide")
    shapely = pytest.importorskip("shapely")
    folder = tmp_path_factory.mktemp("wsi")
    position_slide(folder / "S1.svs", [(1500, 1200)], 0.499)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slide = wsidata.open_wsi(str(folder / "S1.svs"), store=str(folder / "S1.zarr"))
        wsidata.io.add_tissues(slide, "tissues", [shapely.box(100, 100, 1400, 1100)])
        lazyslide.pp.tile_tissues(slide, 224, mpp=0.998, key_added="tiles", background_fraction=1.0)
        tiles = slide["tiles"]
        values = np.random.default_rng(0).normal(size=(len(tiles), 8)).astype(np.float32)
        wsidata.io.add_features(slide, "resnet50_tiles", "tiles", values)
        slide.write()
    return folder / "S1.zarr", values, tiles.bounds[["minx", "miny"]].to_numpy()


def test_lazyslide_zarr_is_read(tmp_path: Path, wsi: tuple[Path, np.ndarray, np.ndarray]) -> None:
    path, values, corners = wsi
    (found,) = read_any(path)
    assert (found.layout, found.encoder, found.slide_id, found.problems) == ("wsidata features", "resnet50", "S1", ())
    assert np.array_equal(found.features, values) and found.places is not None
    assert np.array_equal(found.places.xy, corners) and len(corners) > 3
    assert (found.places.side, found.places.tile_px) == ((448, 448), 224)
    assert (found.places.size0, found.places.mpp) == ((1500, 1200), 0.499)
    back = read_features(_converted(tmp_path, "native", path)[0])
    assert np.array_equal(back.features, values) and np.array_equal(back.xy0, corners)
    assert back.plan.mpp_wanted == pytest.approx(0.998)


def test_slide2vec_and_hs2p_files_are_read(tmp_path: Path) -> None:
    artifacts = pytest.importorskip("slide2vec.artifacts")
    values = torch.from_numpy(_features(6))
    meta = {
        "encoder_name": "virchow2",
        "coordinates_meta_path": "",
        "tile_size_lv0": 448,
        "requested_tile_size_px": 224,
    }
    places = np.array([[0, 0], [448, 0], [0, 448], [448, 448], [0, 896], [448, 896]])
    (tmp_path / "tiles").mkdir()
    np.savez_compressed(
        tmp_path / "tiles" / "S1.coordinates.npz",
        tile_index=np.arange(6, dtype=np.int32),
        x=places[:, 0],
        y=places[:, 1],
        tissue_fractions=np.ones(6, np.float32),
    )
    about = {"slide": {"dimensions": [1500, 1200]}, "tiling": {"n_tiles": 6, "tile_size_lv0": 448, "overlap": 0.0}}
    about["artifact"] = {"coordinate_space": "level0_px"}
    (tmp_path / "tiles" / "S1.coordinates.meta.json").write_text(json.dumps(about))
    for kind in ("pt", "npz"):
        made = artifacts.write_tile_embeddings("S1", values, output_dir=tmp_path, output_format=kind, metadata=meta)
        (found,) = read_any(Path(made.path))
        assert (found.layout, found.encoder, found.problems) == ("slide2vec features", "virchow2", ())
        assert np.array_equal(found.features, values.numpy()) and found.features.dtype == np.float16
        assert found.places is not None and np.array_equal(found.places.xy, places)
        assert (found.places.side, found.places.tile_px) == ((448, 448), 224)


def test_torchmil_reads_the_trident_tree(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchmil.datasets")
    features, _ = _converted(tmp_path, "trident")
    (tmp_path / "labels.csv").write_text("wsi,label\nS1,1\n")
    found = datasets.TridentWSIDataset(
        base_path=f"{features.parent.parent}/",
        labels_path=str(tmp_path / "labels.csv"),
        feature_extractor="vit",
        patch_size=512,
        bag_keys=["X", "Y", "coords"],
        wsi_name_col="wsi",
        wsi_label_col="label",
    )
    bag = found[0]
    assert np.array_equal(bag["X"].numpy(), _features(23).astype(np.float32)) and int(bag["Y"]) == 1
    coords = bag["coords"].numpy()
    assert len(coords) == 23 and len(np.unique(coords, axis=0)) == 23


def test_torchmil_reads_native_files_as_they_are(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchmil.datasets")
    for name in ("features", "labels"):
        (tmp_path / name).mkdir()
    write_features(tmp_path / "features" / "S1.h5", _features(23), _table(23), ENCODER, PROVENANCE)
    with h5py.File(tmp_path / "labels" / "S1.h5", "w") as file:
        file["labels"] = np.array([1])
    found = datasets.ProcessedMILDataset(
        features_path=str(tmp_path / "features"),
        labels_path=str(tmp_path / "labels"),
        coords_path=str(tmp_path / "features"),
        bag_keys=["X", "Y", "coords"],
        file_ext=".h5",
    )
    assert np.array_equal(found[0]["X"].numpy(), _features(23).astype(np.float32))
    assert np.array_equal(found[0]["coords"].numpy(), _table(23).grid.xy0)
