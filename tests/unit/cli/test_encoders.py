"""`pathpipe encoders`: a table for people and programs, one entry in full, and weights fetched beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pathpipe.cli.app import main
from pathpipe.encoders import fetch
from pathpipe.encoders.fetch import weights_sha256


def _run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    return int(str(stop.value.code or 0)), out, err


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of weights with CytoFM's in it, and a hub that can't be reached."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*args: Any, **how: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    fetch._from_hub.cache_clear()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    monkeypatch.setenv("PATHPIPE_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "cytofm").mkdir()
    (tmp_path / "cytofm" / "teacher.pth").write_bytes(b"weights")
    return tmp_path


def test_the_table_says_what_is_here(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(["encoders", "--form", "json"], capsys)
    rows = {row["encoder"]: row for row in json.loads(out)}
    assert code == 0 and len(rows) >= 48
    assert (rows["uni"]["dim"], rows["uni"]["um/px"], rows["uni"]["access"]) == (1024, "0.5", "gated")
    assert rows["cytofm"] == {
        "encoder": "cytofm",
        "dim": 768,
        "input px": 224,
        "um/px": "not stated",
        "size": "86M",
        "domain": "cytology",
        "licence": "not stated",
        "access": "by hand",
        "weights here": "yes",
    }
    assert rows["conch-v1.5"]["weights here"] == "no" and rows["efficientnet-lite0"]["weights here"] == "yes"
    assert _run(["encoders"], capsys)[1].splitlines()[0].startswith("encoder\tdim")


def test_one_entry_in_full(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(["encoders", "virchow2", "--form", "json"], capsys)
    shown = {row["field"]: row["value"] for row in json.loads(out)}
    assert code == 0 and shown["pooling"] == "cls+mean" and shown["weights here"] == "no"
    for words in ("accept the licence (CC-BY-NC-ND-4.0)", "HF_TOKEN", "pathpipe encoders pull virchow2", "virchow2/"):
        assert words in shown["to get them"]
    out = _run(["encoders", "cytofm", "--form", "json"], capsys)[1]
    shown = {row["field"]: row["value"] for row in json.loads(out)}
    assert shown["mpp"] == shown["licence"] == "not stated" and "to get them" not in shown
    assert shown["weights here"] == str(shelf / "cytofm" / "teacher.pth")
    code, _, err = _run(["encoders", "virchow3"], capsys)
    assert code == 2 and "did you mean `virchow" in err


def test_pull_prints_digest_and_path(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(["encoders", "pull", "cytofm", "efficientnet-lite0"], capsys)
    mine = shelf / "cytofm" / "teacher.pth"
    lines = out.splitlines()
    assert code == 0 and lines[0] == f"{weights_sha256(mine)}  {mine}"
    assert lines[1].startswith("579344248a93e230")


def test_pull_says_what_to_do_where_it_cannot(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _run(["encoders", "pull", "uni"], capsys)
    assert code == 3 and out == "" and "gated, and the hub can't be reached" in err and "HF_TOKEN" in err
    code, _, err = _run(["encoders", "pull", "uni", "--offline"], capsys)
    assert code == 3 and "works offline" in err
    (shelf / "uni").mkdir()
    (shelf / "uni" / "pytorch_model.bin").write_bytes(b"half a download")
    code, _, err = _run(["encoders", "pull", "uni"], capsys)
    assert code == 2 and "not the published ones" in err


def test_help_names_the_ways(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(["encoders", "--help"], capsys)
    assert code == 0 and "pull" in out and "show" in out
