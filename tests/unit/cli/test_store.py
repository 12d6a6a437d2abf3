"""`pathpipe store`: what people type, what they are told, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pathpipe.cli.app import main
from pathpipe.store.features import read_features, write_features
from tests.unit.store.peers import atlaspatch, clam_features, clam_tiles, rows, trident
from tests.unit.store.test_store import ENCODER, PROVENANCE, _features, _table


def _run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["store", *arguments])
    out, err = capsys.readouterr()
    return int(str(stop.value.code or 0)), out, err


def _native(folder: Path, name: str = "S1", encoder: dict[str, object] = ENCODER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_features(folder / f"{name}.h5", _features(23), _table(23), encoder, PROVENANCE)
    return folder / f"{name}.h5"


def test_inspect_one_file_and_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trident(tmp_path / "features_uni" / "S1.h5", rows())
    code, out, _ = _run(["inspect", str(path), "--json"], capsys)
    found = {row["field"]: row["value"] for row in json.loads(out)}
    assert code == 0 and found["layout"] == "TRIDENT features" and found["tile"] == "512 x 512 level-0 px"
    clam_features(tmp_path / "clam", rows())
    atlaspatch(tmp_path / "atlas.h5", {"uni": rows()})
    code, out, _ = _run(["inspect", str(tmp_path), "--json"], capsys)
    listed = {Path(row["file"]).relative_to(tmp_path).as_posix(): row for row in json.loads(out)}
    assert code == 1  # CLAM's file doesn't say how large a tile is
    assert listed["atlas.h5"]["layout"] == "AtlasPatch features" and listed["atlas.h5"]["features"] == "7x6 float32"
    assert [name for name, row in listed.items() if row["problems"]] == ["clam/h5_files/S1.h5"]


def test_convert_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    h5, _ = clam_features(tmp_path / "clam", rows())
    clam_tiles(tmp_path / "where" / "S1.h5")
    base = ["convert", str(tmp_path / "clam"), "--to", "native", "-o", str(tmp_path / "out"), "--form", "json"]
    code, out, _ = _run(base, capsys)
    assert code == 1 and "doesn't say how large a tile is" in json.loads(out)[0]["error"]
    whole = [*base, "--coords", str(tmp_path / "where"), "--mpp", "0.25", "--encoder", "resnet50"]
    code, out, _ = _run(whole, capsys)
    assert code == 0 and json.loads(out)[0]["rows"] == 7
    found = read_features(tmp_path / "out" / "resnet50" / "S1.h5")
    assert np.array_equal(found.features, rows()) and found.plan.side0 == (512, 512) and h5.exists()
    code, _, err = _run([*whole, "--slides", str(tmp_path)], capsys)
    assert code == 2 and "--slides and --mpp both" in err


def test_merge_and_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _native(tmp_path / "a"), _native(tmp_path / "b", "S2")
    code, out, _ = _run(["merge", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "o")], capsys)
    assert code == 0 and out.splitlines() == [str(tmp_path / "o" / "vit" / f"{name}.h5") for name in ("S1", "S2")]
    other = _native(tmp_path / "c", "S1", {**ENCODER, "name": "uni"})
    joined = ["merge", str(tmp_path / "a"), str(other), "--side-by-side", "-o", str(tmp_path / "o")]
    assert _run(joined, capsys)[1].strip().endswith("vit+uni/S1.h5")
    for state in ("made", "up to date"):
        code, out, _ = _run(["pack", str(tmp_path / "o" / "vit")], capsys)
        assert code == 0 and out == f"{tmp_path / 'o' / 'vit.pack'}: 2 slides, 46 rows, {state}\n"
    code, out, _ = _run(["inspect", str(tmp_path / "o" / "vit.pack"), "--form", "csv"], capsys)
    assert code == 0 and "layout,pathpipe pack" in out and "features,46x6 float16" in out
    _native(tmp_path / "o" / "vit", "S2", {**ENCODER, "revision": "2"})
    assert _run(["inspect", str(tmp_path / "o" / "vit.pack")], capsys)[0] == 1


def test_verify_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trident(tmp_path / "S1.h5", rows())
    code, _, err = _run(["verify", str(path)], capsys)
    assert code == 2 and "where the slides are" in err and "--slides" in err
