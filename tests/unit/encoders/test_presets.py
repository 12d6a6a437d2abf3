"""A preset a domain: an encoder of that domain, tiles at the scale it was trained for, tissue as its slides need."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathpipe.encoders.catalogue import encoder_record
from pathpipe.settings import RunSettings, merge, read_yaml
from pathpipe.tissue.method import METHODS

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def _settings(name: str) -> RunSettings:
    return merge(RunSettings, [(name, read_yaml(CONFIGS / name))])[0]


@pytest.mark.parametrize(
    ("file", "domain", "method"),
    [
        ("histology_20x.yaml", "histology", "otsu"),
        ("uni_abmil.yaml", "histology", "otsu"),
        ("cytology.yaml", "cytology", "cytology"),
        ("cytology_blood.yaml", "cytology", "cytology"),
    ],
)
def test_presets_suit_their_domain(file: str, domain: str, method: str) -> None:
    settings = _settings(file)
    record = encoder_record(settings.extract.encoder)
    assert record.domain.startswith(domain)
    assert settings.tissue.method == method
    assert record.mpp in (None, settings.tile.mpp), "tiles at the encoder's own scale, where it has one"
    assert record.tile_px in (None, settings.tile.tile_px)
    found = METHODS[settings.tissue.method].Options(**settings.tissue.method_settings)
    assert found is not None


def test_cytology_keeps_tiles_with_little_in_them() -> None:
    for file in ("cytology.yaml", "cytology_blood.yaml"):
        assert _settings(file).tile.min_tissue < _settings("histology_20x.yaml").tile.min_tissue
        assert _settings(file).tissue.mpp < _settings("histology_20x.yaml").tissue.mpp
    assert _settings("cytology.yaml").extract.encoder == "cytofm"
    assert _settings("cytology_blood.yaml").extract.encoder == "reddino-b"
