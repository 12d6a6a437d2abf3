"""Stage `embed`: one vector a slide with its provenance, made once, stale when its input or its encoder changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pathpipe.cohort import Cohort
from pathpipe.errors import MissingError, SettingsError, StoreError
from pathpipe.execution.unit import bring_up_to_date
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge
from pathpipe.stages.chain import units, upstream
from pathpipe.stages.embed import STAGE
from pathpipe.store.embeddings import Embedding, read_embedding, write_embedding
from pathpipe.store.features import write_features
from pathpipe.tiles.attributes import SlideFacts
from pathpipe.tiles.grid import TileGrid
from pathpipe.tiles.plan import ReadPlan
from pathpipe.tiles.table import TileTable

PLAN = ReadPlan(256, 0, 0.5, (0.25, 0.25), 0, (1.0, 1.0), (512, 512), (512.0, 512.0), (512.0, 512.0))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "S1.svs").write_text("pixels")
    return Run.create(tmp_path / "run", Cohort.read(tmp_path / "S1.svs"))


def _settings(**sections: dict[str, Any]) -> RunSettings:
    return merge(RunSettings, [("test", {"extract": {"encoder": "uni"}, **sections})])[0]


def _put_features(run: Run, rows: int, seed: int = 0, encoder: str = "uni") -> np.ndarray:
    xy0 = np.stack([np.arange(rows) * 512, np.zeros(rows)], axis=1).astype(np.int64)
    grid = TileGrid(xy0, np.ones(rows, np.float32), PLAN, None if rows else "no tissue found")
    features = np.random.default_rng(seed).normal(size=(rows, 6)).astype(np.float16)
    identity = {"name": encoder, "revision": "", "weights_sha256": "ab" * 32, "transform": "resize 224", "dim": 6}
    made = Provenance("extract", 1, {}, {"slide": "s", "tiles": "t", "encoder": f"e{seed}"})
    path = run.features("uni", "S1")
    path.parent.mkdir(parents=True, exist_ok=True)
    table = TileTable(grid, SlideFacts("S1", (51200, 4096), (51200, 4096)))
    write_features(path, features, table, identity, made)
    return features


def test_a_slide_becomes_its_mean_with_provenance(run: Run) -> None:
    features = _put_features(run, 23)
    receipt = bring_up_to_date(STAGE, run, "S1", _settings())
    assert (receipt.state, receipt.counts) == ("done", {"tiles": 23, "dim": 6})
    path = run.folder / "embeddings" / "uni" / "mean" / "S1.h5"
    found = read_embedding(path)
    assert np.allclose(found.vector, features.astype(np.float64).mean(0), atol=1e-6)
    assert (found.slide_id, found.tiles, found.encoder["name"]) == ("S1", 23, "uni")
    assert found.slide_encoder == {"name": "mean", "version": 1}
    made = read_provenance(path)
    features_made = read_provenance(run.features("uni", "S1"))
    assert made is not None and features_made is not None
    assert made.inputs["features"] == features_made.fingerprint
    assert made.settings == {"embed": {"slide_encoder": "mean"}}
    with h5py.File(path) as file:  # as TRIDENT's slide features are read
        assert file["features"].shape == (6,) and file["features"].attrs["name"] == "S1"
    assert bring_up_to_date(STAGE, run, "S1", _settings()).state == "current"


def test_equal_input_gives_equal_bytes_and_other_features_make_it_stale(run: Run) -> None:
    _put_features(run, 5)
    bring_up_to_date(STAGE, run, "S1", _settings())
    path = run.embedding("uni", "mean", "S1")
    first = path.read_bytes()
    path.unlink()
    bring_up_to_date(STAGE, run, "S1", _settings())
    assert path.read_bytes() == first
    _put_features(run, 5, seed=1)
    assert bring_up_to_date(STAGE, run, "S1", _settings()).state == "stale"
    assert bring_up_to_date(STAGE, run, "S1", _settings(execution={"stale": "remake"})).state == "done"
    assert path.read_bytes() != first


def test_each_slide_encoder_has_its_own_folder(run: Run) -> None:
    features = _put_features(run, 5)
    for name in ("max", "mean-std"):
        assert bring_up_to_date(STAGE, run, "S1", _settings(embed={"slide_encoder": name})).state == "done"
    assert np.array_equal(read_embedding(run.embedding("uni", "max", "S1")).vector, features.max(0).astype(np.float32))
    assert len(read_embedding(run.embedding("uni", "mean-std", "S1")).vector) == 12


def test_a_slide_without_tiles_is_empty_and_says_why(run: Run) -> None:
    _put_features(run, 0)
    receipt = bring_up_to_date(STAGE, run, "S1", _settings())
    assert (receipt.state, receipt.reason) == ("empty", "no tissue found")
    assert read_embedding(run.embedding("uni", "mean", "S1")).vector.shape == (0,)


def test_a_contract_is_checked_before_anything_is_encoded_and_against_the_file(run: Run) -> None:
    assert STAGE.preflight is not None
    titan = {"slide_encoder": "titan"}
    with pytest.raises(SettingsError, match=r"needs features of `conch-v1\.5`, these are of `uni`"):
        STAGE.preflight(run, _settings(embed=titan))
    fitting = {"extract": {"encoder": "conch-v1.5"}, "embed": titan}
    with pytest.raises(SettingsError, match="needs tiles of 256 um"):
        STAGE.preflight(run, _settings(**fitting))
    with pytest.raises(MissingError, match="no installed package brings"):
        STAGE.preflight(run, _settings(**fitting, tile={"mpp": 0.5, "tile_px": 512}))
    STAGE.preflight(run, _settings())


def test_features_of_another_encoder_in_the_file_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is called uni; what counts is what the file says of itself."""
    from pathpipe.encoders.slide.pooling import MeanPooling
    from pathpipe.encoders.slide.slide_encoder import SlideNeeds

    card = MeanPooling.card.model_copy(update={"needs": SlideNeeds(encoders=("uni",), tile_px=256, mpp=0.5)})
    monkeypatch.setattr(MeanPooling, "card", card)
    _put_features(run, 5)
    assert bring_up_to_date(STAGE, run, "S1", _settings()).state == "done"
    run.embedding("uni", "mean", "S1").unlink()
    _put_features(run, 5, encoder="uni2-h")
    receipt = bring_up_to_date(STAGE, run, "S1", _settings())
    assert receipt.state == "failed" and "these are of `uni2-h`" in str(receipt.reason)


def test_its_place_in_the_chain(run: Run) -> None:
    assert upstream("embed") == ["tissue", "tile", "extract", "embed"]
    assert "embed" not in upstream("report")
    assert units(run, "embed", _settings()) == []
    _put_features(run, 3)
    assert units(run, "embed", _settings()) == ["S1"]


def test_vectors_that_are_none_are_refused(tmp_path: Path) -> None:
    made = Provenance("embed", 1, {}, {})
    wrong: list[tuple[Any, str]] = [
        (np.array([1.0, np.nan], np.float32), "1 values are NaN"),
        (np.ones((2, 2), np.float32), r"must be \(D,\) float32"),
        (np.ones(2), "float64"),
    ]
    for vector, words in wrong:
        with pytest.raises(StoreError, match=words):
            write_embedding(tmp_path / "x.h5", Embedding(vector, "S", {}, {}, 1, None, made))
    with pytest.raises(StoreError, match="there is no such embedding"):
        read_embedding(tmp_path / "none.h5")
    (tmp_path / "noise.h5").write_bytes(b"noise")
    with pytest.raises(StoreError, match="is damaged"):
        read_embedding(tmp_path / "noise.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["format"], file.attrs["version"] = "pathpipe-embedding", 99
    with pytest.raises(StoreError, match="version 99"):
        read_embedding(tmp_path / "other.h5")
