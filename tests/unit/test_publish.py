"""Publishing: whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pathpipe import publish as module
from pathpipe.publish import is_partial, now_on, partial_path, publish, publish_json, sweep, withdraw


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


def test_an_error_names_what_was_to_be_published(tmp_path: Path) -> None:
    for inside in ("", "/one"):
        with pytest.raises(OSError, match="not enough") as caught, publish(tmp_path / "a.h5") as partial:
            raise OSError(28, "not enough room", f"{partial}{inside}")
        assert caught.value.filename == f"{tmp_path / 'a.h5'}{inside}"


def _renames(monkeypatch: pytest.MonkeyPatch, **calls: Callable[..., Any]) -> None:
    monkeypatch.setattr(module, "os", SimpleNamespace(**{**vars(os), **calls}))


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_rename_that_nfs_asked_for_twice_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_folder: bool
) -> None:
    """The answer to the first was lost on the way, and the second is told that there is nothing to rename."""

    def twice(source: Path, target: Path) -> None:
        os.replace(source, target)
        os.replace(source, target)

    _renames(monkeypatch, replace=twice)
    with publish(tmp_path / "a") as partial:
        _write(partial, "whole", is_folder)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize("same_number", [False, True])
def test_what_another_published_meanwhile_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_folder: bool, same_number: bool
) -> None:
    """The partial was withdrawn, and the next owner's result has the name, and perhaps the inode's number, by now."""

    def late(source: Path, target: Path) -> None:
        withdraw(source)
        _write(target, "whole", is_folder)
        os.utime(target, (1, 1))
        os.replace(source, target)

    _renames(monkeypatch, replace=late)
    if same_number:
        stat = os.stat

        def numbered(path: Path) -> SimpleNamespace:
            found = stat(path)
            return SimpleNamespace(st_ino=4711, st_mtime_ns=found.st_mtime_ns, st_size=found.st_size)

        _renames(monkeypatch, replace=late, stat=numbered)
    with pytest.raises(FileNotFoundError), publish(tmp_path / "a") as partial:
        _write(partial, "whole", is_folder)
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_was_withdrawn_between_two_renames_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    _write(target, "the next owner's", is_folder=True)

    def rename(source: Path, aside: Path) -> None:
        os.rename(source, aside)
        if source == target:
            (withdrawn,) = [path for path in tmp_path.iterdir() if path != aside]
            shutil.rmtree(withdrawn)

    _renames(monkeypatch, rename=rename)
    with pytest.raises(FileNotFoundError), publish(target) as partial:
        _write(partial, "late", is_folder=True)
    assert (target / "content").read_text() == "the next owner's"
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_that_comes_back_between_two_renames_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fenced worker had set it aside and puts it back."""
    target, comes_back = tmp_path / "model", iter([True, True])
    _write(target, "old", is_folder=True)

    def rename(source: Path, aside: Path) -> None:
        os.rename(source, aside)
        if source == target and next(comes_back, False):
            _write(target, "old", is_folder=True)

    _renames(monkeypatch, rename=rename)
    with publish(target) as partial:
        _write(partial, "new", is_folder=True)
    assert (target / "content").read_text() == "new"
    assert os.listdir(tmp_path) == ["model"]


def _write(path: Path, content: str, is_folder: bool) -> None:
    if is_folder:
        path.mkdir()
    (path / "content" if is_folder else path).write_text(content)


@pytest.mark.parametrize(
    "name", ["precious.txt", ".S1.partial.h5", ".S1.host-12-0a1b2c3d.partial.h5", "a.0a1b2c3d-1-2-0a1b2c3d.partial"]
)
def test_other_names_are_no_partials(name: str) -> None:
    assert not is_partial(name)


@pytest.mark.parametrize("name", ["S1.h5", "S1", "a.b c.h5", "x.partial.h5", ".hidden"])
def test_partials_are_hidden_beside_their_target(tmp_path: Path, name: str) -> None:
    partial = partial_path(tmp_path / name)
    assert is_partial(partial.name) and partial.parent == tmp_path and partial.name.startswith(".")
    assert partial.suffix == Path(name).suffix or not Path(name).suffix


def test_a_probe_tells_the_clock_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert abs(now_on(tmp_path) - (tmp_path / "a").stat().st_mtime) < 5
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(FileNotFoundError) as caught:
        now_on(tmp_path / "absent")
    assert caught.value.filename == str(tmp_path / "absent")
