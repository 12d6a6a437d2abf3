"""Handles: every reader gives its files back, and reads the same from threads, after a fork and in a new process."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathpipe.errors import PathpipeError
from pathpipe.slides.open import READERS, open_slide
from pathpipe.slides.slide import Slide
from pathpipe.testing.slides import position_pixels, position_slide, position_zarr
from tests.conftest import ROOT

READER_NAMES = READERS.names()
FORKING = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One small slide a kind: whichever reader there is finds one it knows."""
    folder = tmp_path_factory.mktemp("examples")
    Image.fromarray(position_pixels((400, 300))).save(folder / "d.png")
    found = [
        position_slide(folder / "a.svs", [(400, 300), (100, 75)]),
        position_zarr(folder / "b.zarr", [(400, 300), (100, 75)]),
        folder / "d.png",
    ]
    data = Path(os.environ.get("PATHPIPE_TEST_DATA", ROOT.parent / "shared" / "data"))
    real = data / "slides" / "dicom_camelyon_jpeg.dcm"
    return [*found, Path(shutil.copy(real, folder / "c.dcm"))] if real.exists() else found


@pytest.fixture(params=READER_NAMES)
def known(request: pytest.FixtureRequest, examples: list[Path]) -> tuple[str, Path]:
    """A reader, and a slide that it opens."""
    refusals = []
    for path in examples:
        try:
            open_slide(path, request.param).close()
        except PathpipeError as error:
            refusals.append(error.what)
        else:
            return request.param, path
    pytest.skip(f"reader {request.param} opens none of the examples: {'; '.join(refusals)}")


def _corners(slide: Slide, count: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(0)
    return [(int(rng.integers(-20, slide.size0[0])), int(rng.integers(-20, slide.size0[1]))) for _ in range(count)]


def _state() -> tuple[int, int]:
    """Open files, threads."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "dropped"])
def test_files_threads_and_memory_are_given_back(known: tuple[str, Path], closes: bool) -> None:
    reader, path = known

    def use(times: int) -> None:
        for _ in range(times):
            slide = open_slide(path, reader)
            slide.read((0, 0), 0, (32, 32))
            if closes:
                slide.close()
            del slide
        gc.collect()

    use(30)  # caches and thread pools of the libraries fill up
    before, held = _state(), [_resident()]
    for _ in range(2):
        use(100)
        held.append(_resident())
    after = _state()
    assert after[0] <= before[0] and after[1] <= before[1], (before, after)
    # one step may be the allocator's or another thread's; what is kept of every slide shows in both
    assert min(held[1] - held[0], held[2] - held[1]) < 4 * 2**20, held


def test_threads_read_what_one_reads(known: tuple[str, Path]) -> None:
    reader, path = known
    with open_slide(path, reader) as slide:
        last = len(slide.levels) - 1
        asked = [(xy0, level) for xy0 in _corners(slide, 40) for level in {0, last}]
        alone = [slide.read(xy0, level, (64, 48)) for xy0, level in asked]
        assert len({region.tobytes() for region in alone}) > 10, "the regions must differ"
        ready = threading.Barrier(4)

        def read(part: int) -> list[np.ndarray]:
            ready.wait(timeout=20)
            return [slide.read(xy0, level, (64, 48)) for xy0, level in asked[part:] + asked[:part]]

        with ThreadPoolExecutor(4) as pool:
            for part, regions in zip((0, 7, 20, 33), pool.map(read, (0, 7, 20, 33)), strict=True):
                expected = alone[part:] + alone[:part]
                assert all(np.array_equal(a, b) for a, b in zip(regions, expected, strict=True))


@FORKING
def test_after_a_fork_both_sides_read(known: tuple[str, Path]) -> None:
    reader, path = known
    with open_slide(path, reader) as slide:
        corners = _corners(slide, 30)
        expected = b"".join(slide.read(xy0, 0, (40, 30)).tobytes() for xy0 in corners)
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # ends a child that waits for ever
            found = b"".join(slide.read(xy0, 0, (40, 30)).tobytes() for xy0 in corners)
            os.write(theirs, b"same" if found == expected else b"other")
            os._exit(0)
        while not os.waitpid(pid, os.WNOHANG)[0]:
            again = b"".join(slide.read(xy0, 0, (40, 30)).tobytes() for xy0 in corners)
            assert again == expected, "the child moved the parent's file"
        os.close(theirs)
        said = os.read(ours, 10)
        os.close(ours)
        assert said == b"same"


def _digest(reader: str, path: Path) -> list[int]:
    with open_slide(path, reader) as slide:
        return [int(slide.read(xy0, 0, (40, 30)).astype(np.int64).sum()) for xy0 in _corners(slide, 5)]


@FORKING
def test_new_processes_read_the_same(examples: list[Path]) -> None:
    pairs = []
    for reader in READER_NAMES:
        for path in examples:
            try:
                pairs.append((reader, path, _digest(reader, path)))
            except PathpipeError:
                continue
    assert len(pairs) >= 5
    for method in ("spawn", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            for reader, path, expected in pairs:
                found = pool.apply_async(_digest, (reader, path)).get(timeout=60)
                assert found == expected, (method, reader)
