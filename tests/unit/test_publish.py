"""Publishing: whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pathpipe.publish import publish, publish_json, sweep


def test_file_appears_only_on_a_clean_exit(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.h5"
    with publish(target) as partial:
        partial.write_bytes(b"whole")
        assert not target.exists()
        assert partial.suffix == ".h5"
    assert target.read_bytes() == b"whole"
    assert os.listdir(target.parent) == ["a.h5"]


def test_error_leaves_the_old_file_and_no_partial(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ValueError, match="stop"), publish(target) as partial:
        partial.write_text("half")
        raise ValueError("stop")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_folder_replaces_a_filled_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("one", "two"):
        with publish(target) as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    assert os.listdir(target) == ["two"]
    assert os.listdir(tmp_path) == ["model"]


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        publish_json(tmp_path / "a.json", {"value": float("nan")})
    assert os.listdir(tmp_path) == []


def test_sweep_takes_only_what_the_dead_left(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pathpipe.publish import publish\n"
        "with publish(Path(sys.argv[1])) as partial:\n    partial.write_text('half'); os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "dead.h5"], check=False)
    assert len(os.listdir(tmp_path)) == 1
    with publish(tmp_path / "alive.h5") as partial:
        partial.write_text("mine")
        assert sweep(tmp_path) == 1
        assert partial.exists()
    assert os.listdir(tmp_path) == ["alive.h5"]
