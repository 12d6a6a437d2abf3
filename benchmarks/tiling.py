"""Tissue and tiles of one slide, from a cold process: pathpipe, hs2p and LazySlide, in turn, time and peak memory.

Each tool is asked for 256 px tiles at 0.5 um/px with at least a quarter of tissue, on a mask of 8 um/px where it lets
one choose. `memory` ends with the coordinates in memory, `files` with what the tool leaves on disk. Every measurement
is a process of its own. Needs the peers of `make bench-peers`; those that are absent are left out by name.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TILE_PX, MPP, MIN_TISSUE, MASK_MPP = 256, 0.5, 0.25, 8.0
Result = tuple[np.ndarray, int, np.ndarray | None]  # (N, 2) level-0 corners, level-0 side, (H, W) bool over the slide


QUALITY = ("pen", "shadow", "edge", "blur")


def pathpipe(slide_path: Path, out: Path | None, quality: bool) -> Callable[[], Result]:
    """In memory the functions of the stages, on disk the stages themselves: outlines, tile table, overlay.

    Args:
        quality: Also look for pen, shadows, edges and blur, as is the default; the peers have nothing like it.
    """
    from pathpipe.settings import RunSettings, merge
    from pathpipe.slides.open import open_slide
    from pathpipe.slides.resolution import resolve_mpp
    from pathpipe.tiles.grid import make_grid
    from pathpipe.tiles.plan import plan_read
    from pathpipe.tissue.segment import segment

    loaded("pathpipe.slides.readers.direct", "pathpipe.tissue.methods.otsu", "simplejpeg", "openslide")
    wanted = {
        "tile": {"mpp": MPP, "tile_px": TILE_PX, "min_tissue": MIN_TISSUE},
        "tissue": {"mpp": MASK_MPP, **({} if quality else dict.fromkeys(QUALITY, "off"))},
    }
    settings, _ = merge(RunSettings, [("benchmark", wanted)])

    def in_memory() -> Result:
        with open_slide(slide_path) as slide:
            mpp = resolve_mpp(slide, None, "error")
            mask = segment(slide, mpp, settings.tissue)
            grid = make_grid(slide, plan_read(slide, mpp, settings.tile), mask, settings.tile)
            return grid.xy0, round(grid.plan.side0[0]), mask.mask

    if out is None:
        return in_memory
    from pathpipe.cohort import Cohort
    from pathpipe.execution.worker import work
    from pathpipe.run import Run
    from pathpipe.stages import tile, tissue  # noqa: F401 - loaded when first used
    from pathpipe.tiles.table import read_tiles

    def on_disk() -> Result:
        run = Run.create(out, Cohort.read(slide_path))
        receipts = work(run, ["tissue", "tile"], settings, slide_path.stem)
        assert receipts[-1].ok, receipts[-1].reason
        grid = read_tiles(run.tiles(slide_path.stem)).grid
        return grid.xy0, round(grid.plan.side0[0]), None

    return on_disk


def loaded(*names: str) -> None:
    """Import now what a tool would import in its first call, so that imports are counted as imports."""
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def hs2p(slide_path: Path, out: Path | None, method: str) -> Callable[[], Result]:
    """hs2p's `tile_slide`; its reader of choice, one worker."""
    from dataclasses import replace

    import hs2p as tool

    loaded("hs2p.wsi.wsi", "hs2p.wsi.backends", "cucim", "pyvips", "openslide", "PIL.Image", "cv2")
    tiling = tool.TilingConfig(
        requested_spacing_um=MPP, requested_tile_size_px=TILE_PX, tolerance=0.05, overlap=0.0, backend="auto"
    )
    segmentation = tool.SegmentationConfig(method=method, downsample=32)
    masks = replace(tool.DEFAULT_MASK_SAMPLING, min_coverage={"tissue": MIN_TISSUE})

    def run() -> Result:
        spec = tool.SlideSpec(sample_id="slide", image_path=slide_path)
        found: Any = tool.tile_slide(spec, tiling=tiling, segmentation=segmentation, num_workers=1, masks=masks)
        if out is not None:
            tool.save_tiling_result(found, output_dir=out)
            tool.write_tiling_preview(result=found, output_dir=out, downsample=32)
        mask = getattr(found.tiles, "tissue_mask", None)
        return np.stack([found.x, found.y], axis=1), int(found.tile_size_lv0), None if mask is None else mask > 0

    return run


def lazyslide(slide_path: Path, out: Path | None, level: str | int) -> Callable[[], Result]:
    """LazySlide's `find_tissues` and `tile_tissues`."""
    import lazyslide as tool
    from wsidata import open_wsi

    loaded("openslide", "tiffslide", "fastslide", "cucim", "cv2", "shapely", "geopandas", "spatialdata", "zarr")

    def run() -> Result:
        wsi: Any = open_wsi(str(slide_path), store=None if out is None else str(out / "slide.zarr"))
        tool.pp.find_tissues(wsi, level=level)
        tool.pp.tile_tissues(wsi, TILE_PX, mpp=MPP, background_fraction=1 - MIN_TISSUE)
        if out is not None:
            wsi.write(str(out / "slide.zarr"))
        bounds = wsi.shapes["tiles"].bounds.to_numpy()
        side = round(bounds[0, 2] - bounds[0, 0])
        return np.round(bounds[:, :2]).astype(np.int64), side, _filled(wsi.shapes["tissues"].geometry, wsi)

    return run


def _filled(polygons: Any, wsi: Any) -> np.ndarray:
    import cv2

    height0, width0 = wsi.properties.shape
    canvas = np.zeros((height0 // 32, width0 // 32), np.uint8)
    for polygon in polygons:
        rings = [np.asarray(ring.coords) / 32 for ring in (polygon.exterior, *polygon.interiors)]
        cv2.fillPoly(canvas, [np.round(ring).astype(np.int32) for ring in rings], 1)
    return canvas > 0


TOOLS: dict[str, Callable[[Path, Path | None], Callable[[], Result]]] = {
    "pathpipe": lambda slide, out: pathpipe(slide, out, quality=True),
    "pathpipe, quality control off": lambda slide, out: pathpipe(slide, out, quality=False),
    "hs2p": lambda slide, out: hs2p(slide, out, "hsv"),
    "hs2p, method otsu": lambda slide, out: hs2p(slide, out, "otsu"),
    "LazySlide": lambda slide, out: lazyslide(slide, out, "auto"),
    "LazySlide, coarsest level": lambda slide, out: lazyslide(slide, out, -1),
}


def one(tool: str, slide: Path, keep: Path | None, files: bool) -> None:
    """The measured process: prints import and work seconds, tiles and peak memory as JSON."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run = TOOLS[tool](slide, Path(folder) / "out" if files else None)
        ready = time.perf_counter()
        xy0, side0, mask = run()
        done = time.perf_counter()
    if keep is not None:
        np.savez(keep, xy0=xy0, side0=side0, mask=np.zeros((0, 0), bool) if mask is None else mask)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count what the parent held before exec
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    said = {"import_s": ready - started, "work_s": done - ready, "tiles": len(xy0), "peak_mib": peak}
    print("RESULT " + json.dumps(said))


def measure(tool: str, slide: Path, keep: Path | None = None, files: bool = False) -> dict[str, float] | None:
    """Run `one` in a new process; None where the tool isn't there."""
    command = [sys.executable, __file__, str(slide), "--one", tool]
    command += ["--files"] if files else []
    command += ["--keep", str(keep)] if keep else []
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    whole = time.perf_counter() - started
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        print(f"left out: {tool}: {(done.stderr.strip().splitlines() or ['no result'])[-1]}")
        return None
    return {**json.loads(lines[0].removeprefix("RESULT ")), "process_s": whole}


def command_line(slide: Path, rounds: int) -> None:
    """Both command lines with everything they write by default, whole processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "slides.csv").write_text(f"sample_id,image_path\nslide,{slide.resolve()}\n")
        config = f"csv: {folder}/slides.csv\ntiling:\n  seg_params: {{downsample: 32}}\n"
        config += f"  params: {{requested_spacing_um: {MPP}, requested_tile_size_px: {TILE_PX}}}\n"
        config += f"  masks: {{min_coverage: {{tissue: {MIN_TISSUE}}}}}\nspeed: {{num_workers: 1}}\n"
        seconds: dict[str, list[float]] = {"pathpipe tile": [], "hs2p": []}
        for number in range(rounds):
            (folder / "hs2p.yaml").write_text(f"output_dir: {folder}/hs2p{number}\n{config}")
            for tool, arguments in (
                ("pathpipe tile", ["pathpipe", "tile", str(slide), "-o", f"{folder}/run{number}", "--workers", "1"]),
                ("hs2p", ["hs2p", f"{folder}/hs2p.yaml"]),
            ):
                started = time.perf_counter()
                done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
                seconds[tool].append(time.perf_counter() - started)
                if done.returncode:
                    print(f"left out: {tool}: {(done.stderr.strip().splitlines() or ['no result'])[-1]}")
                    return
        print("\ncommand lines, whole process s: ", end="")
        print(", ".join(f"{tool} {statistics.median(taken):.2f}" for tool, taken in seconds.items()))


def table(slide: Path, files: bool, rounds: int) -> None:
    """The tools in turn; medians, and the ratio of pathpipe's time in the same round."""
    print(f"\n{'files on disk' if files else 'coordinates in memory'}, medians of {rounds} rounds")
    print(
        "| tool | tiles | work s | with imports s | whole process s | peak MiB | pathpipe is faster (work, process) |"
    )
    print("|---|---|---|---|---|---|---|")
    runs: dict[str, list[dict[str, float]]] = {}
    names = [name for name in TOOLS if measure(name, slide, files=files)]  # also warms the page cache
    for _ in range(rounds):
        for name in names:
            found = measure(name, slide, files=files)
            assert found is not None
            runs.setdefault(name, []).append(found)
    for name, found in runs.items():
        mid = {key: statistics.median(run[key] for run in found) for key in found[0]}
        pairs = list(zip(runs["pathpipe"], found, strict=True))
        work, process = (statistics.median(r[key] / p[key] for p, r in pairs) for key in ("work_s", "process_s"))
        cells = f"{mid['work_s']:.3f} | {mid['import_s'] + mid['work_s']:.2f} | {mid['process_s']:.2f}"
        print(f"| {name} | {mid['tiles']:.0f} | {cells} | {mid['peak_mib']:.0f} | {work:.1f}, {process:.1f} |")


def main() -> None:
    """Measure, and draw what each keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path, nargs="?", help="a 40x slide; one of 40,000 px is made where none is given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--draw", type=Path, help="where to draw the masks and tiles, side by side")
    parser.add_argument("--one", choices=TOOLS, help=argparse.SUPPRESS)
    parser.add_argument("--files", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one, arguments.slide, arguments.keep, arguments.files)
        return
    with tempfile.TemporaryDirectory() as folder:
        slide = arguments.slide
        if slide is None:
            from mosaic import write_mosaic

            slide = Path(folder) / "mosaic.svs"
            write_mosaic(slide, 40_000)
        if arguments.draw:
            from tiling_picture import draw

            kept = {name: Path(folder) / f"{number}.npz" for number, name in enumerate(TOOLS)}
            draw(slide, {name: path for name, path in kept.items() if measure(name, slide, path)}, arguments.draw)
        for files in (False, True):
            if arguments.rounds:
                table(slide, files, arguments.rounds)
        if arguments.rounds:
            command_line(slide, arguments.rounds)


if __name__ == "__main__":
    main()
