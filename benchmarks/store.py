"""Feature stores: writing, reading a whole bag, 512 random rows, size; and 1,000 small bags from files or from a pack.

Reads are ratios of times to those of a memory-mapped npy file in the same round, so that a busy machine spoils all
alike; medians over rounds. Files are in the page cache: what is compared is the format, not the disk.

    python benchmarks/store.py [--rows 20000] [--dim 1024] [--rounds 9] [--bags 1000]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from pathpipe.provenance import Provenance
from pathpipe.store.features import Features, read_features, read_rows, write_hdf5, write_zarr
from pathpipe.store.identity import unknown_identity
from pathpipe.store.pack import fresh_pack, pack_path, write_pack
from pathpipe.tiles.attributes import SlideFacts
from pathpipe.tiles.plan import ReadPlan

PLAN = ReadPlan(256, 0, 0.5, (0.5, 0.5), 0, (1.0, 1.0), (256, 256), (256.0, 256.0), (256.0, 256.0))
Rows = np.ndarray | None  # None: all of them


def make_bag(rows: int, dim: int, seed: int = 0) -> Features:
    """A bag of normal noise in float16: features of a network that ends in a layer norm look like it."""
    values = np.random.default_rng(seed).standard_normal((rows, dim), np.float32).astype(np.float16)
    xy0 = np.stack(np.divmod(np.arange(rows), 200), axis=1) * 256
    provenance = Provenance("extract", 1, {}, {"slide": "s"})
    facts = SlideFacts("S1", (60_000, 60_000), (60_000, 60_000))
    return Features(values, xy0, unknown_identity("uni", dim), PLAN, "s", None, provenance, slide=facts)


def _write_npy(path: Path, whole: Features) -> None:
    np.save(path, whole.features)


def _read_npy(path: Path, rows: Rows) -> Any:
    mapped = np.load(path, mmap_mode="r")
    return np.array(mapped if rows is None else mapped[rows])


def _read_ours(path: Path, rows: Rows) -> Any:
    return (read_features(path) if rows is None else read_rows(path, rows)).features


def _write_chunked(**options: Any) -> Callable[[Path, Features], None]:
    def write(path: Path, whole: Features) -> None:
        rows = options.pop("rows", None) or options["chunks"][0]
        with h5py.File(path, "w") as file:
            shape = (rows, whole.features.shape[1])
            file.create_dataset("features", data=whole.features, **{**options, "chunks": shape})
            file["coords"] = whole.xy0

    return write


def _read_h5(path: Path, rows: Rows) -> Any:
    with h5py.File(path, "r") as file:
        return file["features"][:] if rows is None else file["features"][rows]


def _write_pt(path: Path, whole: Features) -> None:
    torch.save(torch.from_numpy(whole.features), path)


def _read_pt(path: Path, rows: Rows) -> Any:
    whole = torch.load(path, weights_only=True)
    return (whole if rows is None else whole[torch.from_numpy(rows)]).numpy()


STORES: dict[str, tuple[str, Callable[[Path, Features], None], Callable[[Path, Rows], Any]]] = {
    "npy, memory-mapped": (".npy", _write_npy, _read_npy),
    "pathpipe HDF5": (".h5", write_hdf5, _read_ours),
    "pathpipe Zarr": (".zarr", write_zarr, _read_ours),
    "HDF5, chunks of 32 rows (CLAM)": (".32.h5", _write_chunked(chunks=(32,)), _read_h5),
    "HDF5, chunks of 512 rows, gzip-4": (".gz.h5", _write_chunked(chunks=(512,), compression="gzip"), _read_h5),
    "torch .pt": (".pt", _write_pt, _read_pt),
}


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(one.stat().st_size for one in path.rglob("*"))


def compare_stores(folder: Path, whole: Features, rounds: int) -> None:
    """Print a row a store."""
    megabytes = whole.features.nbytes / 1e6
    wanted = np.sort(np.random.default_rng(1).choice(len(whole.features), 512, replace=False))
    times: dict[str, dict[str, list[float]]] = {name: {"write": [], "whole": [], "rows": []} for name in STORES}
    sizes = {}
    for number in range(rounds):
        for name, (suffix, write, read) in STORES.items():
            path = folder / f"{number}{suffix}"
            times[name]["write"].append(_seconds(lambda write=write, path=path: write(path, whole)))
            assert np.array_equal(read(path, None), whole.features) and np.array_equal(
                read(path, wanted), whole.features[wanted]
            )
            times[name]["whole"].append(_seconds(lambda read=read, path=path: read(path, None)))
            times[name]["rows"].append(_seconds(lambda read=read, path=path: read(path, wanted)))
            sizes[name] = _size(path)
    base = times["npy, memory-mapped"]
    print(f"\none bag of {whole.features.shape[0]} x {whole.features.shape[1]} float16, {megabytes:.0f} MB\n")
    print("| store | write MB/s | whole bag, time / npy | 512 random rows, time / npy | size / npy |")
    print("|---|---|---|---|---|")
    for name, found in times.items():
        ratios = [
            statistics.median(a / b for a, b in zip(found[what], base[what], strict=True)) for what in ("whole", "rows")
        ]
        speed = megabytes / statistics.median(found["write"])
        size = sizes[name] / sizes["npy, memory-mapped"]
        print(f"| {name} | {speed:.0f} | {ratios[0]:.2f} | {ratios[1]:.1f} | {size:.2f} |")


def compare_bags(folder: Path, count: int, rounds: int) -> None:
    """Read small bags in random order: from a file each, and from a pack."""
    features = folder / "small"
    features.mkdir()
    for index in range(count):
        write_hdf5(features / f"{index:05d}.h5", make_bag(200, 512, index))
    files = {path.stem: path for path in sorted(features.iterdir())}
    packing = _seconds(lambda: write_pack(list(files.values()), pack_path(features)))
    order = np.random.default_rng(2).permutation(sorted(files)).tolist()
    ratios, alone, opening = [], [], []
    for _ in range(rounds):
        one = _seconds(lambda: [read_features(files[name]).features.sum() for name in order])
        opening.append(_seconds(lambda: fresh_pack(files)))
        pack = fresh_pack(files)
        assert pack is not None
        two = _seconds(lambda pack=pack: [pack.bag(f"{name}.h5").features.sum() for name in order])
        ratios.append(one / (two + opening[-1]))
        alone.append(one / two)
    print(f"\n{count} bags of 200 x 512 float16 in random order, every value touched:")
    print(f"pack against files: {statistics.median(ratios):.1f} times as fast with checking that nothing has changed,")
    print(f"{statistics.median(alone):.1f} times without; checking takes {statistics.median(opening) * 1e3:.0f} ms, ")
    print(f"packing took {packing:.1f} s")


def main() -> None:
    """Both comparisons."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 20_000), ("dim", 1024), ("rounds", 9), ("bags", 1000)):
        options.add_argument(f"--{name}", type=int, default=default)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        compare_stores(Path(name), make_bag(given.rows, given.dim), given.rounds)
        compare_bags(Path(name), given.bags, given.rounds)


if __name__ == "__main__":
    main()
