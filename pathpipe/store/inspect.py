"""Inspect: what a feature or tile file is, whoever made it, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pathpipe.errors import StoreError
from pathpipe.store.layouts import native
from pathpipe.store.layouts.detect import layout_of, read_any
from pathpipe.store.layouts.record import DAMAGE, SlideFeatures, plain_facts
from pathpipe.store.pack import FORMAT as PACK
from pathpipe.store.pack import SUFFIX, changed_sources, open_pack
from pathpipe.tiles.grid import Regions
from pathpipe.tiles.plan import ReadPlan
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


def describe(path: Path, coords: Path | None = None) -> Description:
    """Describe a file of tiles or features of any layout that is known, or a pack.

    Args:
        coords: Coordinates for features that lack them.

    Raises:
        StoreError: It is of no known layout, or damaged so that it can't be opened.
        MissingError: Reading it needs a package that isn't installed.
    """
    if not path.exists():
        raise StoreError("there is no such file", where=str(path))
    kind, names = _format_and_names(path)
    if kind == TILES:
        return _describe_tiles(path)
    if kind == PACK:
        return _describe_pack(path)
    if names is not None and "coords" in names and not {"features", "feats"} & names:
        return _describe_coordinates(path)
    try:
        layout = layout_of(path)
    except StoreError as error:
        if names is None:
            raise
        found = ", ".join(sorted(names)) or "nothing"
        raise StoreError(f"holds neither tiles nor features (datasets: {found})", str(path), error.hint) from None
    try:
        records = read_any(path, coords)
    except StoreError as error:
        if layout is native:  # damage of our own files isn't a trait of theirs
            raise
        return Description(layout.NAME, _shapes(path), [error.what])
    problems = [problem for record in records for problem in record.problems]
    if len(records) == 1:
        return Description(layout.NAME, _facts(records[0]), problems)
    facts: dict[str, Any] = {"encoders": ", ".join(str(record.encoder) for record in records)}
    for record in records:
        facts.update({f"{record.encoder}: {name}": value for name, value in _facts(record).items()})
    return Description(layout.NAME, facts, list(dict.fromkeys(problems)))


def _format_and_names(path: Path) -> tuple[str, set[str] | None]:
    """What an HDF5 file calls itself, and what it holds; None for what isn't named like one."""
    if path.is_dir() or path.suffix.lower() not in (".h5", ".hdf5", ".h5ad", SUFFIX):
        return "", None
    try:
        with h5py.File(path, "r", locking=False) as file:
            return str(file.attrs.get("format", "")), set(file)
    except (OSError, KeyError, RuntimeError) as error:  # h5py gives any of them for a damaged header
        raise StoreError(f"can't be opened as HDF5: {error}", where=str(path)) from None


def _facts(record: SlideFeatures) -> dict[str, Any]:
    rows, dim = record.features.shape
    facts: dict[str, Any] = {"slide": record.slide_id, "features": f"{rows}x{dim} {record.features.dtype}"}
    if record.native is not None:
        return facts | _own_facts(record)
    facts["encoder"] = record.encoder or "not stated"
    places = record.places
    if places is not None:
        unit = "um" if places.in_um else "level-0 px"
        facts["coords"] = f"{len(places.xy)}x2 in {unit}"
        if places.side is not None:
            facts["tile"] = f"{places.side[0]:g} x {places.side[1]:g} {unit}"
        if places.tile_px is not None:
            facts["tile px"] = places.tile_px
        if places.overlap:
            facts["overlap"] = f"{places.overlap:.3g} of a tile"
        if places.size0 is not None:
            facts["level 0"] = f"{places.size0[0]} x {places.size0[1]} px"
        if places.mpp is not None:
            facts["um/px of level 0"] = places.mpp
    facts.update({f"says {name}": str(value) for name, value in record.stated.items()})
    if record.left_out:
        facts["also holds"] = "; ".join(record.left_out)
    return facts


def _own_facts(record: SlideFeatures) -> dict[str, Any]:
    whole = record.native
    assert whole is not None
    facts: dict[str, Any] = {"coords": f"{len(whole.xy0)}x2 in level-0 px"}
    facts.update(_plan_facts(whole.plan))
    facts.update(_region_facts(whole.regions))
    facts.update({f"encoder {name}": value for name, value in whole.encoder.items()})
    facts["fingerprint"] = whole.provenance.fingerprint
    facts.update({f"made by {name}": value for name, value in whole.provenance.made_by.items()})
    if whole.empty_reason:
        facts["empty"] = whole.empty_reason
    return facts


def _describe_tiles(path: Path) -> Description:
    grid = read_tiles(path).grid
    facts = {**_shapes(path), **_plan_facts(grid.plan), **_region_facts(grid.regions)}
    if grid.empty_reason:
        facts["empty"] = grid.empty_reason
    return Description("pathpipe tiles", facts)


def _describe_coordinates(path: Path) -> Description:
    try:
        with h5py.File(path, "r", locking=False) as file:
            attributes = plain_facts(file["coords"].attrs)
    except DAMAGE as error:
        raise StoreError(f"can't be read ({error})", where=str(path)) from None
    owner = "TRIDENT" if "patch_size_level0" in attributes else "CLAM"
    facts = {f"coords.{name}": str(value) for name, value in attributes.items()}
    return Description(f"{owner} coordinates", {**_shapes(path), **facts})


def _describe_pack(path: Path) -> Description:
    pack = open_pack(path)
    folder = path.with_name(path.name.removesuffix(SUFFIX))
    changed = changed_sources(pack, [folder / name for name in pack.sources])
    facts = {
        "slides": len(pack.sources),
        "features": f"{'x'.join(map(str, pack.features.shape))} {pack.features.dtype}",
        "largest bag": int(np.diff(pack.offsets).max(initial=0)),
        **{f"encoder {name}": value for name, value in pack.encoder.items()},
    }
    problems = [f"{len(changed)} of {len(pack.sources)} sources have changed since: {', '.join(changed[:3])}"]
    return Description("pathpipe pack", facts, problems if changed else [])


def _shapes(path: Path) -> dict[str, Any]:
    if not path.is_file() or not h5py.is_hdf5(path):
        return {}
    with h5py.File(path, "r", locking=False) as file:
        return {
            name: f"{'x'.join(str(side) for side in item.shape)} {item.dtype}"
            for name, item in file.items()
            if isinstance(item, h5py.Dataset)
        }


def _region_facts(regions: Regions | None) -> dict[str, Any]:
    return {} if regions is None else {"regions": f"{len(regions.xy0)} of {regions.side} x {regions.side} tiles"}


def _plan_facts(plan: ReadPlan) -> dict[str, Any]:
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
