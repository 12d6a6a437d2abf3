"""Staging: the copy is whole and gone afterwards, the quota holds between threads and processes, the dead are swept."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pathpipe.errors import SettingsError
from pathpipe.slides.staging import _CLAIM, staged


def _copies(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_CLAIM}*"))


def test_a_copy_for_as_long_as_it_is_read(tmp_path: Path) -> None:
    slide = tmp_path / "slow" / "S 1.svs"
    slide.parent.mkdir()
    slide.write_bytes(bytes(range(256)) * 10)
    with staged(slide, tmp_path / "fast", 10_000) as local:
        assert local != slide and local.name == slide.name and local.read_bytes() == slide.read_bytes()
    assert _copies(tmp_path / "fast") == [] and slide.exists()


def test_mrxs_brings_its_folder(tmp_path: Path) -> None:
    slide = tmp_path / "a.mrxs"
    slide.write_bytes(b"cover")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Data0001.dat").write_bytes(b"pixels")
    with staged(slide, tmp_path / "fast", 100) as local:
        assert (local.with_suffix("") / "Data0001.dat").read_bytes() == b"pixels"


def test_larger_than_the_quota_is_read_in_place(tmp_path: Path) -> None:
    slide = tmp_path / "a.svs"
    slide.write_bytes(b"x" * 101)
    with staged(slide, tmp_path / "fast", 100) as local:
        assert local == slide
    with staged(slide, None, 0) as local:
        assert local == slide


def test_a_folder_is_copied_whole_and_a_series_not_at_all(tmp_path: Path) -> None:
    chunk = tmp_path / "a.zarr" / "0" / "0.0"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"pixels")
    with staged(tmp_path / "a.zarr", tmp_path / "fast", 100) as local:
        assert (local / "0" / "0.0").read_bytes() == b"pixels"
    several = tmp_path / "a.vms"
    several.write_bytes(b"one of several")
    with staged(several, tmp_path / "fast", 100) as local:
        assert local == several, "its pixels lie beside it"


def test_the_quota_is_waited_for(tmp_path: Path) -> None:
    most, now = 0, 0
    lock = threading.Lock()

    def read(number: int) -> None:
        nonlocal most, now
        slide = tmp_path / f"{number}.svs"
        slide.write_bytes(b"x" * 40)
        with staged(slide, tmp_path / "fast", 100):
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.02)
            with lock:
                now -= 1

    threads = [threading.Thread(target=read, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2 and _copies(tmp_path / "fast") == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    dead = tmp_path / "fast" / f"{_CLAIM}4194305-90-abcd"  # beyond the largest process number Linux gives
    dead.mkdir(parents=True)
    (dead / "half.svs").write_bytes(b"x")
    slide = tmp_path / "a.svs"
    slide.write_bytes(b"x" * 50)
    with staged(slide, tmp_path / "fast", 100):
        assert not dead.exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    slide = tmp_path / "a.svs"
    slide.write_bytes(b"x")
    with pytest.raises(SettingsError, match="can't be written"), staged(slide, tmp_path / "file" / "sub", 100):
        pass
