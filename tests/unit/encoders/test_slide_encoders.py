"""Slide encoders: poolings that are right, contracts that are kept, published ones that say how to get them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pathpipe.encoders.catalogue import encoder_names
from pathpipe.encoders.slide import catalogue
from pathpipe.encoders.slide.catalogue import (
    load_slide_encoder,
    published,
    slide_encoder_card,
    slide_encoder_names,
)
from pathpipe.encoders.slide.slide_encoder import SlideNeeds, SlideTiles
from pathpipe.errors import MissingError, SettingsError
from pathpipe.registry import Registry


def _tiles(features: np.ndarray, **more: Any) -> SlideTiles:
    xy0 = np.zeros((len(features), 2), np.int64)
    facts: dict[str, Any] = {"side0": (512.0, 512.0), "mpp0": (0.25, 0.25), "encoder": "vit", "tile_um": 128.0}
    return SlideTiles(features, xy0, **{**facts, **more})


def _embed(name: str, features: np.ndarray) -> np.ndarray:
    return load_slide_encoder(name, "cpu").embed(_tiles(features))


def test_poolings_by_hand() -> None:
    features = np.array([[1.0, -4.0], [3.0, 0.0], [5.0, 4.0]], np.float32)
    assert _embed("mean", features).tolist() == [3.0, 0.0]
    assert _embed("max", features).tolist() == [5.0, 4.0]
    std = np.sqrt([8 / 3, 32 / 3]).astype(np.float32)  # of the tiles there are: divided by N
    assert np.allclose(_embed("mean-std", features), [3.0, 0.0, *std], rtol=1e-6)
    assert _embed("mean-std", features[:1]).tolist() == [1.0, -4.0, 0.0, 0.0]


@pytest.mark.parametrize("rows", [1, 8191, 8192, 20_001])
def test_poolings_of_many_half_precision_rows(rows: int) -> None:
    """float16 sums would overflow at 65,504 and lose the small ones long before."""
    features = (40 + np.random.default_rng(0).normal(size=(rows, 5))).astype(np.float16)
    exact = features.astype(np.float64)
    expected = {"mean": exact.mean(0), "max": exact.max(0), "mean-std": np.concatenate([exact.mean(0), exact.std(0)])}
    for name, value in expected.items():
        found = _embed(name, features)
        assert found.dtype == np.float32 and np.allclose(found, value, rtol=1e-6, atol=1e-6), name


def test_order_of_tiles_is_of_no_concern() -> None:
    features = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    for name in ("mean", "max", "mean-std"):
        assert np.allclose(_embed(name, features), _embed(name, features[::-1]), atol=1e-7)


def test_contracts_name_what_is_wrong_and_what_would_be_right() -> None:
    needs = SlideNeeds(encoders=("conch-v1.5",), tile_px=512, mpp=0.5)
    needs.check("titan", "conch-v1.5", 256.0)
    needs.check("titan", "conch-v1.5", 258.0)
    with pytest.raises(SettingsError, match=r"`titan`: needs features of `conch-v1\.5`, these are of `uni`") as caught:
        needs.check("titan", "uni", 256.0)
    assert "--encoder conch-v1.5 --mpp 0.5 --tile-px 512" in str(caught.value.hint)
    with pytest.raises(SettingsError, match=r"tiles of 256 um \(512 px at 0.5 um/px\), these are of 128 um"):
        needs.check("titan", "conch-v1.5", 128.0)
    SlideNeeds().check("mean", "anything", 1.0)


def test_published_slide_encoders_need_what_their_authors_fed_them() -> None:
    needs = {name: (card.needs.encoders, card.needs.tile_um, card.dim) for name, card in published().items()}
    assert needs == {
        "titan": (("conch-v1.5",), 256.0, 768),
        "prism": (("virchow",), 112.0, 1280),
        "gigapath-slide": (("prov-gigapath",), 128.0, 768),
        "chief": (("chief-ctranspath",), 256.0, 768),
        "madeleine": (("conch",), 256.0, 512),
        "feather": (("conch-v1.5",), 256.0, 512),
    }
    for card in published().values():
        assert set(card.needs.encoders) <= set(encoder_names())
        assert card.licence and card.paper and card.weights and card.code


def test_published_ones_without_a_package_say_how_to_get_them() -> None:
    with pytest.raises(MissingError, match="no installed package brings the slide encoder `titan`") as caught:
        load_slide_encoder("titan", "cpu")
    for words in ("huggingface.co/MahmoodLab/TITAN", "CC-BY-NC-ND-4.0", "pathpipe.slide-encoders", "plugins.md"):
        assert words in str(caught.value.hint)
    with pytest.raises(SettingsError, match="did you mean `titan`"):
        load_slide_encoder("titann", "cpu")


def test_an_installed_package_adds_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_slides.py").write_text(
        "import numpy as np\n"
        "from pathpipe.encoders.slide.slide_encoder import SlideCard, SlideNeeds\n"
        "class Mine:\n"
        "    card = SlideCard(name='mine', summary='first row', needs=SlideNeeds(encoders=('vit',)))\n"
        "    def __init__(self, device):\n        self.identity = {'name': 'mine', 'weights': 'abc', 'on': device}\n"
        "    def embed(self, tiles):\n        return tiles.features[0].astype(np.float32)\n"
        "class Titan(Mine):\n    card = SlideCard(name='titan', summary='theirs')\n"
        "class NoCard:\n    pass\n"
    )
    info = tmp_path / "their_slides-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-slides\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[pathpipe.slide-encoders]\nmine = their_slides:Mine\n"
        "titan = their_slides:Titan\nnocard = their_slides:NoCard\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(catalogue, "SLIDE_ENCODERS", Registry("slide-encoder", catalogue.SLIDE_ENCODERS.builtin))
    load_slide_encoder.cache_clear()
    try:
        assert slide_encoder_names()[:4] == ["mean", "max", "mean-std", "mine"]
        mine = load_slide_encoder("mine", "cpu")
        assert mine.embed(_tiles(np.ones((2, 3), np.float16))).tolist() == [1, 1, 1]
        assert slide_encoder_card("mine").needs.encoders == ("vit",)
        assert load_slide_encoder("titan", "cpu").identity["on"] == "cpu"
        assert slide_encoder_card("titan").needs.encoders == ("conch-v1.5",), "the published contract stands"
        with pytest.raises(SettingsError, match="of package their-slides has no card"):
            slide_encoder_card("nocard")
    finally:
        load_slide_encoder.cache_clear()
        sys.modules.pop("their_slides", None)
