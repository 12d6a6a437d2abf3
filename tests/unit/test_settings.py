"""Settings: layering, origins, refusals, and one truth for YAML and options."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pathpipe.errors import SettingsError
from pathpipe.settings import RunSettings, merge, read_yaml, to_yaml


def test_later_layers_win_key_by_key_and_keep_their_origin() -> None:
    settings, origins = merge(
        RunSettings,
        [
            ("a.yaml", {"tile": {"mpp": 1.0, "tile_px": 224}}),
            ("--tile-mpp", {"tile": {"mpp": 0.25}}),
        ],
    )
    assert (settings.tile.mpp, settings.tile.tile_px, settings.tile.overlap_px) == (0.25, 224, 0)
    assert origins == {"tile.mpp": "--tile-mpp", "tile.tile_px": "a.yaml"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"seeds": [0, -1]}}, "a seed can't be below 0: -1"),
        ({"train": {"seeds": [3, 3]}}, "`3` stands twice"),
        ({"tile": {"mp": 1}}, r"tile.mp \(x.yaml\): there is no such setting.*did you mean `mpp`"),
        ({"tiles": {}}, "did you mean `tile`"),
        ({"tile": {"mpp": 0}}, r"tile.mpp \(x.yaml\).*greater than or equal to 0.05; got 0"),
        ({"tile": {"overlap_px": 256}}, "overlap_px must be smaller than tile_px"),
        ({"tile": {"exclude_class": "Pen"}}, "exclude_class says nothing without exclude"),
        ({"tile": {"include": "", "include_class": "Tumour"}}, "include_class says nothing without include"),
        ({"slide": {"mpp_policy": "guess"}}, "must be `error`, `objective` or `default=X`"),
        ({"slide": {"mpp_policy": "default=264"}}, "between 0.05 and 40"),
        ({"extract": {"precision": "fp8"}}, "fp32"),
        ({"train": {"seeds": []}}, "at least 1 item"),
    ],
)
def test_refusals_name_key_origin_and_remedy(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        merge(RunSettings, [("x.yaml", values)])
    assert caught.match(message)


def test_printed_settings_read_back_the_same() -> None:
    settings, origins = merge(
        RunSettings,
        [
            (
                "-s",
                {
                    "train": {"model_settings": {"hidden": 64}, "seeds": [0, 1]},
                    "slide": {"mpp_policy": "default=0.25"},
                },
            )
        ],
    )
    printed = to_yaml(settings, origins)
    assert "mpp_policy: default=0.25" in printed and "# -s" in printed
    again, _ = merge(RunSettings, [("printed", yaml.safe_load(printed))])
    assert again == settings


def test_yaml_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for text, message in [("- 1\n", "must hold sections"), ("a: [", "can't be read as YAML")]:
        path.write_text(text)
        with pytest.raises(SettingsError, match=message):
            read_yaml(path)
    path.write_text("")
    assert read_yaml(path) == {}
    with pytest.raises(SettingsError, match="no such settings file"):
        read_yaml(tmp_path / "b.yaml")


def test_shipped_configs_are_valid(request: pytest.FixtureRequest) -> None:
    root = Path(request.config.rootpath)
    files = [*sorted((root / "configs").glob("*.yaml")), root / "pathpipe" / "samples" / "demo.yaml"]
    assert len(files) >= 4
    for file in files:
        settings, _ = merge(RunSettings, [(str(file), read_yaml(file))])
        assert settings.cohort, f"{file} names no cohort"
