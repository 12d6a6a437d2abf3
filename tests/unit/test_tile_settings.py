"""Two ways to say a tile's size and step: they agree, the stronger layer's stands, and what is saved reads back."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pathpipe.cli.options import origins as typed
from pathpipe.errors import SettingsError
from pathpipe.settings import RunSettings, TileSettings, merge, to_yaml


def _merged(*layers: dict[str, Any]) -> TileSettings:
    settings, _ = merge(RunSettings, [(f"layer {at}", {"tile": layer}) for at, layer in enumerate(layers)])
    again, _ = merge(RunSettings, [("saved", yaml.safe_load(to_yaml(settings)))])
    assert again == settings and again.model_dump() == settings.model_dump(), "a saved record reads back"
    return settings.tile


def test_a_size_in_um_is_a_resolution() -> None:
    tile = _merged({"tile_um": 256, "tile_px": 224})
    assert (tile.mpp, tile.tile_px, tile.step_px) == (256 / 224, 224, 224)
    assert _merged({"tile_um": 128}).mpp == 0.5
    assert _merged({"tile_um": 128, "mpp": 0.5}).tile_um == 128


def test_a_stride_is_an_overlap_or_a_gap() -> None:
    assert (_merged({"stride_px": 192}).overlap_px, _merged({"stride_px": 192}).step_px) == (64, 192)
    assert (_merged({"stride_px": 512}).overlap_px, _merged({"stride_px": 512}).step_px) == (0, 512)
    assert (_merged({"overlap_px": 64}).stride_px, _merged({"overlap_px": 64}).step_px) == (None, 192)


_UM = TileSettings(tile_um=256, tile_px=224, stride_px=112).model_dump()


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        (TileSettings(mpp=0.25).model_dump(), {"tile_um": 256}, (1.0, 256, 256.0, 0, None)),
        (_UM, {"mpp": 0.25}, (0.25, 224, None, 112, 112)),
        (_UM, {"tile_px": 256}, (1.0, 256, 256.0, 144, 112)),
        (_UM, {"overlap_px": 0}, (256 / 224, 224, 256.0, 0, None)),
        (_UM, {"stride_px": 448}, (256 / 224, 224, 256.0, 0, 448)),
        (_UM, {"mpp": 0.5, "tile_px": 512, "tile_um": None}, (0.5, 512, None, 400, 112)),
    ],
)
def test_the_stronger_layer_says_which_key_counts(
    below: dict[str, Any], above: dict[str, Any], expected: tuple[float | None, ...]
) -> None:
    tile = _merged(below, above)
    assert (tile.mpp, tile.tile_px, tile.tile_um, tile.overlap_px, tile.stride_px) == expected


def test_what_follows_from_a_key_names_that_key() -> None:
    given = {"tile": {"tile_um": 128.0, "stride_px": 64}}
    settings, where = merge(RunSettings, [("run", {"tile": {"mpp": 0.25, "overlap_px": 1}}), *typed(given)])
    assert (settings.tile.mpp, where["tile.mpp"], where["tile.overlap_px"]) == (0.5, "--tile-um", "--stride-px")
    assert "mpp: 0.5" in to_yaml(settings, where) and "# --tile-um" in to_yaml(settings, where)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mpp": 0.5, "tile_um": 256.0}, "mpp 0.5 and tile_um 256 disagree: 256 um in 256 px are 1 um/px"),
        ({"overlap_px": 16, "stride_px": 200}, "overlap_px 16 and stride_px 200 disagree for tiles of 256 px"),
        ({"tile_um": 2.0}, "greater than or equal to 0.05"),
        ({"tile_um": "wide"}, "valid number"),
        ({"overlap_px": 256}, "overlap_px must be smaller than tile_px$"),
        ({"region_tiles": 4, "overlap_px": 8}, "region_tiles needs tiles side by side"),
        ({"region_tiles": 4, "stride_px": 512}, "region_tiles needs tiles side by side"),
        ({"region_tiles": 4, "max_tiles": 15}, "max_tiles 15 leaves no whole region of 16 tiles"),
    ],
)
def test_contradictions_are_refused_wherever_they_were_typed(values: dict[str, Any], words: str) -> None:
    for layers in ([("a.yaml", {"tile": values})], typed({"tile": values})):
        with pytest.raises(SettingsError) as caught:
            merge(RunSettings, layers)
        assert words.rstrip("$") in caught.value.what
