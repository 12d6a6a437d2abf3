"""A cohort of everything that goes wrong with slides: the good ones are done, each bad one is named with its reason."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from pathpipe.samples.cohort import _textures
from pathpipe.slides.open import open_slide
from pathpipe.testing.slides import cut_short, plain_tiff, position_pixels, position_slide, position_zarr, sparse_tiff
from tests.integration.conftest import SMALL, Call, environment, write_slide

GIB = 2**30
# file -> (the cohort's `mpp`, what is said of it)
BAD = {
    "cut.svs": ("", "damaged: "),
    "words.svs": ("", "no reader opens it"),
    "picture.svs": ("", "has no resolution"),
    "zero.svs": ("", "is empty (0 bytes)"),
    "gone.svs": ("", "there is no such file"),
    "loop.svs": ("", "can't be reached: Too many levels of symbolic links"),
    "folder.svs": ("", "is a folder, not a slide"),
    "grey.tif": ("", "not an RGB slide: 8-bit grey"),
    "sixteen.tif": ("", "not an RGB slide: 16-bit RGB"),
    "five.tif": ("", "not an RGB slide: 8-bit, 5 samples"),
    "five channels.zarr": ("", "not an RGB slide: 8-bit, 5 channels"),
    "mpp zero.svs": ("0", "a resolution of 0 um/px (cohort) can't be true"),
    "mpp nan.svs": ("nan", "a resolution of nan um/px (cohort) can't be true"),
    "mpp 264.svs": ("264.6", "a resolution of 264.6 um/px (cohort) can't be true"),
    "states 264.svs": ("", "a resolution of 264.6 um/px (aperio property) can't be true"),
    "states nan.svs": ("", "has no resolution"),
}
GOOD = ["Schnitt é (1).svs", "標本 2.svs"]


def _make(folder: Path) -> None:
    import shutil

    import zarr

    for name in [*GOOD, "cut.svs", *(name for name, (mpp, _) in BAD.items() if mpp)]:
        write_slide(folder / name, seed=3)
    cut_short(folder / "cut.svs", 0.4)
    (folder / "words.svs").write_text("not an image at all")
    Image.fromarray(position_pixels((300, 200))).save(folder / "picture.svs", "PNG")
    (folder / "zero.svs").touch()
    (folder / "loop.svs").symlink_to(folder / "loop.svs")
    (folder / "folder.svs").mkdir()
    plain_tiff(folder / "grey.tif", np.zeros((128, 128), np.uint8))
    plain_tiff(folder / "sixteen.tif", np.zeros((128, 128, 3), np.uint16))
    five = np.zeros((128, 128, 5), np.uint8)
    tifffile.imwrite(folder / "five.tif", five, photometric="minisblack", planarconfig="contig", metadata=None)
    shutil.rmtree(position_zarr(folder / "five channels.zarr", [(64, 64)]) / "0")
    zarr.create_array(str(folder / "five channels.zarr" / "0"), shape=(5, 64, 64), dtype="uint8", zarr_format=2)
    position_slide(folder / "states 264.svs", [(300, 200)], mpp=264.6)
    position_slide(folder / "states nan.svs", [(300, 200)], mpp=float("nan"))
    plain_tiff(folder / "tiny.tif", np.full((40, 50, 3), 200, np.uint8), (0.5, 0.5))


def test_nothing_else_is_disturbed(pathpipe: Call, tmp_path: Path) -> None:
    folder, run = tmp_path / "slides of é", tmp_path / "run"
    folder.mkdir()
    _make(folder)
    rows = [{"path": name, "mpp": mpp} for name, (mpp, _) in BAD.items()]
    rows += [{"path": name, "mpp": ""} for name in [*GOOD, "tiny.tif"]]
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    done = pathpipe("tile", folder / "cohort.csv", "-o", run, *SMALL, check=1)
    told = done.stderr.splitlines()
    for name, (_, words) in BAD.items():
        (line,) = [line for line in told if line.startswith(f"failed: tissue {Path(name).stem}: ") and name in line]
        assert words in line, line
    assert sum(line.startswith("failed: ") for line in told) == len(BAD)
    assert any(line.startswith("empty: tile tiny: the slide (25 x 20 um) is smaller than a tile") for line in told)
    assert "Traceback" not in done.stderr and "unforeseen" not in done.stderr and "tifffile" not in done.stderr
    alone = tmp_path / "alone"
    pd.DataFrame({"path": GOOD}).to_csv(folder / "good.csv", index=False)
    pathpipe("tile", folder / "good.csv", "-o", alone, *SMALL)
    for name in GOOD:
        stem = Path(name).stem
        assert (run / "tiles" / f"{stem}.h5").read_bytes() == (alone / "tiles" / f"{stem}.h5").read_bytes()


def test_an_ome_zarr_folder_gives_the_tiles_of_the_file_it_was_made_from(pathpipe: Call, tmp_path: Path) -> None:
    import h5py
    import zarr

    folder = tmp_path / "slides"
    write_slide(folder / "a.svs", seed=3)
    with open_slide(folder / "a.svs") as slide:
        path = position_zarr(folder / "b.zarr", [level.size_px for level in slide.levels], (0.5, 0.5), form=3)
        for level in slide.levels:
            pixels = slide.read((0, 0), level.index, level.size_px)
            zarr.open_array(str(path / str(level.index)), mode="r+")[...] = pixels.transpose(2, 0, 1)
    run = tmp_path / "run"
    pathpipe("tile", folder, "-o", run, *SMALL)
    coords = []
    for name in ("a", "b"):
        with h5py.File(run / "tiles" / f"{name}.h5") as file:
            coords.append(file["coords"][:])
    assert len(coords[0]) > 5 and np.array_equal(coords[0], coords[1])
    again = pathpipe("tile", run).stderr
    assert "2 current" in again


def _tissue(side: int) -> np.ndarray:
    tissue = np.asarray(_textures()[0])
    repeats = (-(-side // tissue.shape[0]), -(-side // tissue.shape[1]), 1)
    return np.tile(tissue, repeats)[:side, :side]


def _tile_alone(table: Path, run: Path, *options: str) -> tuple[str, int]:
    """What `pathpipe tile` says, and the most memory it held, bytes."""
    code = (
        "import re, sys\nfrom pathpipe.cli.app import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        # not ru_maxrss, which starts at what the process of the tests holds
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) * 1024)\n"
    )
    command = [sys.executable, "-c", code, "tile", str(table), "-o", str(run), "--workers", "1", *options]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stderr, int(done.stdout.split()[-1])


@pytest.mark.parametrize(
    ("side", "factors", "method"),
    [
        (200_000, (1, 4, 16, 64), ()),
        (200_000, (1, 4, 16, 64), ("--method", "cytology", "--tissue-mpp", "4")),
        (20_000, (1,), ()),
    ],
    ids=["200,000 px, sparse", "a fine mask", "one level"],
)
def test_memory_is_bounded(tmp_path: Path, side: int, factors: tuple[int, ...], method: tuple[str, ...]) -> None:
    middle = side // 2 // 512 * 512
    box = (middle, middle, middle + 6144, middle + 6144)
    sparse_tiff(tmp_path / "big.tif", side, _tissue(512), box, factors)
    said, peak = _tile_alone(tmp_path / "big.tif", tmp_path / "run", *method)
    (tiles,) = re.findall(r"tile big done.*?([\d,]+) tiles", said)
    # 12 x 12 tiles of 256 px at 0.5 um/px cover the box; smoothing may add or lose a rim
    assert int(tiles.replace(",", "")) == pytest.approx(144, rel=0.4)
    assert peak < GIB, f"{peak / GIB:.2f} GiB"
