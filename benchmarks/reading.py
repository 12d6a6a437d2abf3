"""Reading tiles: pathpipe against other readers, in turn in one process, as ratios to OpenSlide.

Every reader gives (N, H, W, 3) uint8 RGB. Each pass opens the file anew, so that nothing decoded is left from the one
before; the file itself is in the page cache. pathpipe is called as its users do: `open_slide` and `stream_tiles`.
Needs the peers of `make bench-peers`; those that are absent are left out by name.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mosaic import write_mosaic

from pathpipe.settings import TileSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.tiles.plan import plan_read
from pathpipe.tiles.stream import stream_tiles

NATIVE = 256
BATCH = 64
BASE = "openslide"


@dataclass(frozen=True)
class Task:
    """Tiles to read.

    Attributes:
        corners: (N, 2) level-0 px.
        read_px: Side that is read from level 0.
        tile_px: Side of the tile; smaller than what is read where level 0 is too fine.
    """

    name: str
    corners: np.ndarray
    read_px: int
    tile_px: int
    threads: int = 1


Reader = Callable[[Path, Task, np.ndarray], None]  # fills (N, tile_px, tile_px, 3)


def tasks(region: tuple[int, int], size: tuple[int, int], tiles: int) -> list[Task]:
    """The grids that are read, `tiles` tiles each.

    Args:
        region: Corner of a piece of tissue, a multiple of the stored tile.
        size: (width, height) of the slide.
    """
    x, y = region
    side = int(np.sqrt(tiles))

    def raster(step: int, shift: tuple[int, int] = (0, 0), count: int = side) -> np.ndarray:
        columns, rows = np.meshgrid(np.arange(count) * step, np.arange(count) * step)
        corners = np.stack([columns.ravel() + x + shift[0], rows.ravel() + y + shift[1]], axis=1)
        return corners[(corners + 2 * NATIVE < size).all(axis=1)]

    rng = np.random.default_rng(0)
    anywhere = rng.integers(0, side * NATIVE, (tiles, 2)) + np.array([x, y])
    half = side * 2 // 3
    return [
        Task("256 px, aligned to the stored tiles", raster(NATIVE), NATIVE, NATIVE),
        Task("256 px raster, not aligned", raster(NATIVE, (101, 57)), NATIVE, NATIVE),
        Task("224 px raster", raster(224), 224, 224),
        Task("512 px, aligned", raster(512, count=half), 512, 512),
        Task("256 px at random places", anywhere[(anywhere + 512 < size).all(axis=1)], NATIVE, NATIVE),
        Task("20x from 40x (512 px to 256), aligned", raster(512, count=half), 512, 256),
        Task("20x from 40x, not aligned", raster(512, (102, 58), half), 512, 256),
    ]


def shrunk(region: np.ndarray, tile_px: int) -> np.ndarray:
    """What a peer's region becomes at the tile's size."""
    if region.shape[0] == tile_px:
        return region
    return np.asarray(cv2.resize(region, (tile_px, tile_px), interpolation=cv2.INTER_AREA))


def pathpipe(reader: str) -> Reader:
    """pathpipe's stream of tiles over one of its own readers."""

    def run(path: Path, task: Task, out: np.ndarray) -> None:
        with open_slide(path, reader) as slide:
            mpp = resolve_mpp(slide, None, "error")
            wanted = TileSettings(mpp=mpp.x * task.read_px / task.tile_px, tile_px=task.tile_px)
            plan = plan_read(slide, mpp, wanted)
            for batch in stream_tiles(slide, plan, task.corners, BATCH, threads=task.threads):
                out[batch.start : batch.start + len(batch.pixels)] = batch.pixels

    return run


def per_tile(opener: Callable[[Path], Callable[[int, int, int], np.ndarray]], shareable: bool = True) -> Reader:
    """A peer that reads one region a call; two threads share the tiles by halves.

    Args:
        shareable: Threads may read through one handle; if not, each opens the file itself.
    """

    def run(path: Path, task: Task, out: np.ndarray) -> None:
        shared = opener(path)

        def part(rows: np.ndarray) -> None:
            read = shared if shareable or task.threads == 1 else opener(path)
            for row in rows.tolist():
                x, y = task.corners[row].tolist()
                out[row] = shrunk(read(x, y, task.read_px), task.tile_px)

        parts = np.array_split(np.arange(len(task.corners)), task.threads)
        if task.threads == 1:
            part(parts[0])
        else:
            with ThreadPoolExecutor(task.threads) as pool:
                list(pool.map(part, parts))

    return run


def openslide() -> Reader:
    """OpenSlide as most pipelines call it."""
    from openslide import OpenSlide

    def opener(path: Path) -> Callable[[int, int, int], np.ndarray]:
        slide = OpenSlide(path)
        return lambda x, y, side: np.asarray(slide.read_region((x, y), 0, (side, side)).convert("RGB"))

    return per_tile(opener)


def tiffslide() -> Reader:
    """TiffSlide straight to arrays."""
    from tiffslide import TiffSlide

    def opener(path: Path) -> Callable[[int, int, int], np.ndarray]:
        slide = TiffSlide(path)
        return lambda x, y, side: slide.read_region((x, y), 0, (side, side), as_array=True)

    return per_tile(opener)


def fastslide() -> Reader:
    """fastslide's regions."""
    from fastslide import FastSlide

    def opener(path: Path) -> Callable[[int, int, int], np.ndarray]:
        slide = FastSlide.from_file_path(str(path))
        return lambda x, y, side: slide.read_region((x, y), 0, (side, side)).numpy()

    return per_tile(opener)


def pyvips() -> Reader:
    """libvips' tiff loader and region fetches; its cache of operations off, or a pass would find the last one's."""
    import pyvips as vips

    vips.cache_set_max(0)

    def opener(path: Path) -> Callable[[int, int, int], np.ndarray]:
        image = vips.Image.new_from_file(str(path), page=0, access="random")
        region = vips.Region.new(image)

        def read(x: int, y: int, side: int) -> np.ndarray:
            return np.frombuffer(region.fetch(x, y, side, side), np.uint8).reshape(side, side, 3)

        return read

    return per_tile(opener, shareable=False)


def cucim() -> Reader:
    """cuCIM's CPU path by its batch interface, which reads ahead with workers of its own."""
    from cucim import CuImage

    def run(path: Path, task: Task, out: np.ndarray) -> None:
        image = CuImage(str(path))
        corners, side = task.corners.tolist(), (task.read_px, task.read_px)
        if task.threads == 1:
            for row, corner in enumerate(corners):
                out[row] = shrunk(np.asarray(image.read_region(corner, side, 0)), task.tile_px)
            return
        batches = image.read_region(corners, side, 0, num_workers=task.threads, batch_size=BATCH)
        row = 0
        for batch in batches:
            for region in np.asarray(batch).reshape(-1, *side, 3):
                out[row] = shrunk(region, task.tile_px)
                row += 1

    return run


READERS: dict[str, Callable[[], Reader]] = {
    "openslide": openslide,
    "pathpipe direct": lambda: pathpipe("direct"),
    "pathpipe openslide": lambda: pathpipe("openslide"),
    "cucim": cucim,
    "pyvips": pyvips,
    "fastslide": fastslide,
    "tiffslide": tiffslide,
}


def at_hand(names: list[str]) -> dict[str, Reader]:
    """The readers that can be imported."""
    found = {}
    for name in names:
        try:
            found[name] = READERS[name]()
        except ImportError as error:
            print(f"left out: {name} ({error})")
    return found


def measure(readers: dict[str, Reader], path: Path, task: Task, rounds: int) -> tuple[dict[str, list[float]], Any]:
    """Seconds of every pass, the readers in turn; and how far pixels are from OpenSlide's, RMS grey levels."""
    out = np.empty((len(task.corners), task.tile_px, task.tile_px, 3), np.uint8)
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    differences: dict[str, float] = {}
    reference = None
    for number in range(rounds + 1):
        for name, reader in readers.items():
            started = time.perf_counter()
            reader(path, task, out)
            taken = time.perf_counter() - started
            if number:
                seconds[name].append(taken)
            elif name == BASE:
                reference = out.copy()
            elif reference is not None:
                error = out[::7].astype(np.float32) - reference[::7]
                differences[name] = float(np.sqrt((error * error).mean()))
    return seconds, differences


def ratios(seconds: dict[str, list[float]], base: str) -> dict[str, float]:
    """Median over rounds of a reader's speed over the base's in the same round."""
    return {
        name: statistics.median(b / own for b, own in zip(seconds[base], taken, strict=True))
        for name, taken in seconds.items()
    }


def tissue_corner(path: Path, span_px: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The square of the slide with most tissue: its corner, in whole stored tiles, and the slide's size."""
    with open_slide(path) as slide:
        level = slide.levels[-1]
        small = slide.read((0, 0), level.index, level.size_px)
        size = slide.size0
    colour = (small.max(axis=2) - small.min(axis=2) > 25).astype(np.float32)
    side = max(1, min(int(span_px / level.downsample[0]), *colour.shape))
    share = cv2.boxFilter(colour, -1, (side, side), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    fits = share[: colour.shape[0] - side + 1, : colour.shape[1] - side + 1]
    row, column = np.unravel_index(int(fits.argmax()), fits.shape)
    corner = (int(v * level.downsample[0]) // NATIVE * NATIVE for v in (column, row))
    x, y = corner
    return (x, y), size


def main() -> None:
    """Print one table of ratios, and one of what a second thread brings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, help="a 40x SVS with 256 px tiles; one is made where none is given")
    parser.add_argument("--tiles", type=int, default=576, help="tiles a pass")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--readers", default=",".join(READERS), help="comma-separated")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    readers = at_hand(arguments.readers.split(","))
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.slide or Path(folder) / "mosaic.svs"
        if arguments.slide is None:
            write_mosaic(path, 20_000)
        corner, size = tissue_corner(path, int(np.sqrt(arguments.tiles)) * 340)
        grids = tasks(corner, size, arguments.tiles)
        print(f"one thread, ratio to {BASE} (its tiles/s, for orientation); RMS: pathpipe direct against {BASE}")
        print("| tiles | " + " | ".join(readers) + " | RMS |\n|---" + "|---" * (len(readers) + 1) + "|")
        for task in grids:
            seconds, differences = measure(readers, path, task, arguments.rounds)
            found = ratios(seconds, BASE)
            rate = len(task.corners) / statistics.median(seconds[BASE])
            cells = [f"1 ({rate:.0f}/s)" if name == BASE else f"{found[name]:.2f}" for name in readers]
            rms = differences.get("pathpipe direct")
            print(f"| {task.name} | " + " | ".join(cells) + f" | {'' if rms is None else f'{rms:.2f}'} |", flush=True)
        print("\ntwo threads, ratio to the same reader with one")
        print("| tiles | " + " | ".join(readers) + " |\n|---" + "|---" * len(readers) + "|")
        for task in (grids[0], grids[1], grids[5]):
            print(
                f"| {task.name} | " + " | ".join(second_thread(readers, path, task, arguments.rounds)) + " |",
                flush=True,
            )


def second_thread(readers: dict[str, Reader], path: Path, task: Task, rounds: int) -> list[str]:
    """Per reader: one thread and two in turn, median of the ratios."""
    double = Task(task.name, task.corners, task.read_px, task.tile_px, threads=2)
    cells = []
    for reader in readers.values():
        pair: dict[str, Reader] = {
            "one": reader,
            "two": lambda path, task, out, reader=reader: reader(path, double, out),  # type: ignore[misc]
        }
        seconds, _ = measure(pair, path, task, rounds)
        cells.append(f"{ratios(seconds, 'one')['two']:.2f}")
    return cells


if __name__ == "__main__":
    main()
