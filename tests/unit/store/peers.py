"""Files as other tools write them, built with h5py, numpy and torch alone from their published layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

N, D = 7, 6
XY0 = np.array([[0, 0], [512, 0], [1024, 0], [0, 512], [512, 512], [1024, 512], [0, 1024]])
TRIDENT_TILES: dict[str, Any] = {
    "patch_size": 256,
    "patch_size_level0": 512,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "name": "S1",
    "savetodir": "/data/out",
    "level0_width": 5120,
    "level0_height": 4096,
}


def rows(dtype: str = "float32", dim: int = D, seed: int = 0) -> np.ndarray:
    """(N, dim) features."""
    return np.random.default_rng(seed).normal(size=(N, dim)).astype(dtype)


def clam_tiles(path: Path, xy0: np.ndarray = XY0) -> Path:
    """`patches/SLIDE.h5`: 256 px of level 1, whose downsample is 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        coords = file.create_dataset("coords", data=xy0, chunks=(1, 2), maxshape=(None, 2))
        coords.attrs["patch_size"] = 256
        coords.attrs["patch_level"] = 1
        coords.attrs["downsample"] = (2.0, 2.0)
        coords.attrs["downsampled_level_dim"] = (2560, 2048)
        coords.attrs["level_dim"] = (2560, 2048)
        coords.attrs["name"] = path.stem
        coords.attrs["save_path"] = "/data/patches"
    return path


def clam_features(folder: Path, values: np.ndarray, xy0: np.ndarray = XY0, name: str = "S1") -> tuple[Path, Path]:
    """`h5_files/SLIDE.h5` without any attribute and `pt_files/SLIDE.pt`."""
    h5, pt = folder / "h5_files" / f"{name}.h5", folder / "pt_files" / f"{name}.pt"
    for path in (h5, pt):
        path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(h5, "w") as file:
        dim = values.shape[1]
        file.create_dataset("features", data=values, chunks=(32, dim), maxshape=(None, dim))
        file.create_dataset("coords", data=xy0.astype(np.int32), chunks=(32, 2), maxshape=(None, 2))
    torch.save(torch.from_numpy(values), pt)
    return h5, pt


def trident(path: Path, values: np.ndarray, encoder: str = "uni_v1", **other: Any) -> Path:
    """`features_ENCODER/SLIDE.h5`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        dim = values.shape[1]
        features = file.create_dataset("features", data=values, chunks=(1, dim), maxshape=(None, dim))
        features.attrs.update({"name": "S1", "savetodir": "/data/out", "encoder": encoder})
        coords = file.create_dataset("coords", data=XY0[: len(values)], chunks=(1, 2), maxshape=(None, 2))
        coords.attrs.update({**TRIDENT_TILES, **other})
    return path


def stamp(path: Path, xy: np.ndarray, **attributes: Any) -> Path:
    """STAMP, of the generation the attributes are of."""
    with h5py.File(path, "w") as file:
        file["coords"] = xy.astype(np.float32)
        file["feats"] = rows("float16")
        file.attrs.update(attributes)
    return path


def atlaspatch(path: Path, encoders: dict[str, np.ndarray]) -> Path:
    """One file with several encoders."""
    reads = np.concatenate([XY0, np.tile([256, 256, 1], (N, 1))], axis=1).astype(np.int32)
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=reads, chunks=(8192, 5), maxshape=(None, 5))
        file.create_dataset("passports", data=np.full(N, b"S1__x0_y0"), dtype="S160", chunks=(8192,), maxshape=(None,))
        for name, values in encoders.items():
            dim = values.shape[1]
            file.create_dataset(f"features/{name}", data=values, chunks=(4, dim), maxshape=(None, dim))
        tiles = {name: value for name, value in TRIDENT_TILES.items() if name not in ("name", "savetodir")}
        file.attrs.update({**tiles, "wsi_path": "/data/S1.svs", "num_patches": N, "mpp": 0.25, "overlap": 64})
        file.attrs["creation_date"] = "2025-01-01T00:00:00+00:00"
    return path


def slide2vec(folder: Path, values: np.ndarray, kind: str = "pt") -> Path:
    """`tile_embeddings/ID.pt` with its description, and hs2p's coordinates in `tiles/`."""
    path = folder / "tile_embeddings" / f"S1.{kind}"
    for one in (path.parent, folder / "tiles"):
        one.mkdir(parents=True, exist_ok=True)
    if kind == "pt":
        torch.save(torch.from_numpy(values), path)
    else:
        np.savez_compressed(path, features=values)
    meta = {
        "sample_id": "S1",
        "artifact_type": "tile_embeddings",
        "format": kind,
        "feature_dim": values.shape[1],
        "num_tiles": len(values),
        "encoder_name": "virchow2",
        "coordinates_npz_path": "/elsewhere/tiles/S1.coordinates.npz",
        "coordinates_meta_path": "/elsewhere/tiles/S1.coordinates.meta.json",
        "image_path": "/elsewhere/S1.svs",
        "tile_size_lv0": 512,
        "requested_tile_size_px": 224,
    }
    (path.parent / "S1.meta.json").write_text(json.dumps(meta))
    np.savez_compressed(
        folder / "tiles" / "S1.coordinates.npz",
        tile_index=np.arange(N, dtype=np.int32),
        x=XY0[:, 0],
        y=XY0[:, 1],
        tissue_fractions=np.ones(N, np.float32),
    )
    tiling = {"n_tiles": N, "tile_size_lv0": 512, "requested_tile_size_px": 224, "overlap": 0.0}
    space = {"slide": {"dimensions": [5120, 4096]}, "tiling": tiling, "artifact": {"coordinate_space": "level0_px"}}
    (folder / "tiles" / "S1.coordinates.meta.json").write_text(json.dumps(space))
    return path
