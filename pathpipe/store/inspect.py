"""Inspect: what a feature or tile file is, whoever made it, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pathpipe.errors import StoreError
from pathpipe.store.features import FORMAT as FEATURES
from pathpipe.store.features import read_features
from pathpipe.tiles.grid import Regions
from pathpipe.tiles.table import FORMAT as TILES
from pathpipe.tiles.table import read_tiles


@dataclass(frozen=True)
class Description:
    """What is known of a file.

    Attributes:
        layout: `pathpipe features`, `pathpipe tiles`, `TRIDENT features`, `CLAM features`, ...
        facts: Name -> value, in the order to show.
        problems: What a reader would stumble over, one sentence each.
    """

    layout: str
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def describe(path: Path) -> Description:
    """Describe an HDF5 file of tiles or features.

    Raises:
        StoreError: It isn't HDF5, or holds neither coords nor features.
    """
    if not path.is_file():
        raise StoreError("there is no such file", where=str(path))
    try:
        with h5py.File(path, "r", locking=False) as file:
            kind = str(file.attrs.get("format", ""))
            layout = _foreign_layout(file) if kind not in (FEATURES, TILES) else kind.replace("-", " ")
            facts = _shapes(file)
    except (OSError, KeyError, RuntimeError) as error:  # h5py gives any of them for a damaged header
        raise StoreError(f"can't be opened as HDF5: {error}", where=str(path)) from None
    if kind == FEATURES:
        return _describe_features(path, layout, facts)
    if kind == TILES:
        return _describe_tiles(path, layout, facts)
    with h5py.File(path, "r", locking=False) as file:
        problems = _alignment(file)
        facts.update(_coords_facts(file))
    return Description(layout, facts, problems)


def _foreign_layout(file: h5py.File) -> str:
    names = set(file)
    if "feats" in names and "stamp_version" in file.attrs:
        return "STAMP features"
    if "coords" not in names:
        found = ", ".join(sorted(names)) or "nothing"
        raise StoreError(f"holds neither tiles nor features (datasets: {found})", where=file.filename)
    trident = "patch_size_level0" in file["coords"].attrs
    owner = "TRIDENT" if trident else "CLAM"
    return f"{owner} features" if "features" in names else f"{owner} coordinates"


def _shapes(file: h5py.File) -> dict[str, Any]:
    return {
        name: f"{'x'.join(str(side) for side in item.shape)} {item.dtype}"
        for name, item in file.items()
        if isinstance(item, h5py.Dataset)
    }


def _coords_facts(file: h5py.File) -> dict[str, Any]:
    if "coords" not in file:
        return {name: str(value) for name, value in file.attrs.items()}
    return {f"coords.{name}": str(value) for name, value in file["coords"].attrs.items()}


def _alignment(file: h5py.File) -> list[str]:
    rows = next((file[name] for name in ("features", "feats") if name in file), None)
    problems = []
    if rows is not None and "coords" in file and len(rows) != len(file["coords"]):
        problems.append(f"{len(rows)} rows of features for {len(file['coords'])} coordinates")
    if rows is not None and not np.isfinite(rows[:]).all():
        problems.append("there are NaN or infinite features")
    return problems


def _describe_features(path: Path, layout: str, facts: dict[str, Any]) -> Description:
    whole = read_features(path)
    facts.update(_plan_facts(whole.plan))
    facts.update(_region_facts(whole.regions))
    facts.update({f"encoder {name}": value for name, value in whole.encoder.items()})
    facts["fingerprint"] = whole.provenance.fingerprint
    facts.update({f"made by {name}": value for name, value in whole.provenance.made_by.items()})
    problems = [] if np.isfinite(whole.features).all() else ["there are NaN or infinite features"]
    if whole.empty_reason:
        facts["empty"] = whole.empty_reason
    return Description(layout, facts, problems)


def _describe_tiles(path: Path, layout: str, facts: dict[str, Any]) -> Description:
    grid = read_tiles(path).grid
    facts.update(_plan_facts(grid.plan))
    facts.update(_region_facts(grid.regions))
    if grid.empty_reason:
        facts["empty"] = grid.empty_reason
    return Description(layout, facts)


def _region_facts(regions: Regions | None) -> dict[str, Any]:
    return {} if regions is None else {"regions of tiles": f"{len(regions.xy0)} of {regions.side} x {regions.side}"}


def _plan_facts(plan: Any) -> dict[str, Any]:
    effective = plan.mpp_effective
    return {
        "um/px wanted": plan.mpp_wanted,
        "um/px effective": f"{effective[0]:.5g} x {effective[1]:.5g} ({plan.error:.2%} off)",
        "um/px of level 0": f"{plan.mpp0[0]:.5g} x {plan.mpp0[1]:.5g}",
        "tile px": plan.tile_px,
        "overlap px": plan.overlap_px,
        "read": f"{plan.read_px[0]} x {plan.read_px[1]} px of level {plan.level}",
        "CLAM's field of view": "right"
        if plan.read_px[0] * plan.shrink == plan.tile_px
        else "see docs/formats.md: a resize is needed",
    }
