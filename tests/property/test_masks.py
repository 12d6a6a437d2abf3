"""Masks: whatever their shape, files keep them to the pixel, and cleaning only does what its name says."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from pathpipe.provenance import Provenance
from pathpipe.slides.slide import Mpp
from pathpipe.tissue.holes import close_gaps, drop_small, fill_holes
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.polygons import fill, outlines_fingerprint, read_tissue, trace, write_tissue

Mask = npt.NDArray[np.bool_]
MASKS = st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(lambda shape: arrays(np.bool_, shape))
SCALES = st.tuples(st.floats(0.3, 130), st.floats(0.3, 130))


def _rings(side: int) -> Mask:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray(np.maximum(abs(rows - side // 2), abs(columns - side // 2)) % 2 == 0)


HARD = {
    "islands in holes in islands": _rings(31),
    "diagonal touches": (np.indices((12, 13)).sum(0) % 2).astype(bool),
    "hole at the border": np.pad(np.zeros((3, 3), bool), ((0, 1), (1, 1)), constant_values=True),
    "everything": np.ones((5, 4), bool),
    "one pixel": np.ones((1, 1), bool),
    "nothing": np.zeros((3, 3), bool),
    "two holes that touch by a corner": ~np.pad(np.eye(2, dtype=bool), 2),
    "long": np.indices((3, 20_000)).sum(0) % 3 > 0,
}


@settings(deadline=None, max_examples=200)
@given(MASKS, SCALES)
def test_polygons_keep_any_mask(mask: Mask, scale0: tuple[float, float]) -> None:
    assert np.array_equal(fill(trace(mask, scale0), scale0, (mask.shape[0], mask.shape[1])), mask)


def test_polygons_keep_the_hard_ones() -> None:
    for name, mask in HARD.items():
        found = fill(trace(mask, (31.7, 32.1)), (31.7, 32.1), (mask.shape[0], mask.shape[1]))
        assert np.array_equal(found, mask), name


KINDS = st.lists(st.sampled_from(["pen", "blur", "shadow", "My own kind", "é"]), unique=True, max_size=3)
ORIGINS = st.tuples(st.integers(-5, 200_000), st.integers(-5, 200_000)) | st.just((0, 0))


@settings(deadline=None, max_examples=60)
@given(MASKS, SCALES, KINDS, ORIGINS, st.integers(0, 2**32 - 1))
def test_files_keep_any_mask_and_its_artefacts(
    mask: Mask, scale0: tuple[float, float], kinds: list[str], origin0: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    artefacts = {kind: rng.random(mask.shape) < rng.choice([0, 0.3, 1]) for kind in kinds}
    made = TissueMask(mask, scale0, Mpp(0.25, 0.25, "t"), 20.0, artefacts=artefacts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.geojson"
        write_tissue(path, made, Provenance("tissue", 1, {}, {}), origin0)
        again = read_tissue(path)
        assert outlines_fingerprint(path) is None
    assert np.array_equal(again.mask, mask) and again.scale0 == scale0
    assert list(again.artefacts) == kinds
    for kind in kinds:
        assert np.array_equal(again.artefacts[kind], artefacts[kind]), kind


@settings(deadline=None, max_examples=60)
@given(MASKS)
def test_outlines_enclose_as_many_parts_and_holes_as_there_are(mask: Mask) -> None:
    polygons = trace(mask, (1.0, 1.0))
    assert len(polygons) == ndimage.label(mask, np.ones((3, 3)))[1]
    count = ndimage.label(np.pad(~mask, 1, constant_values=True))[1]
    assert sum(len(rings) - 1 for rings in polygons) == count - 1, "every enclosed hole has a ring"
    for rings in polygons:
        for ring in rings:
            assert ring.min() >= 0 and (ring <= (mask.shape[1], mask.shape[0])).all(), "inside the mask's own frame"


@settings(deadline=None, max_examples=100)
@given(MASKS, st.integers(1, 30), st.integers(0, 8))
def test_cleaning_keeps_its_promises(mask: Mask, area: int, width: int) -> None:
    dropped = drop_small(mask, area)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    assert np.array_equal(dropped, (sizes >= area)[labels])
    filled = fill_holes(mask, area)
    assert (filled >= mask).all() and np.array_equal(fill_holes(filled, area), filled)
    closed = close_gaps(mask, width)
    assert (closed >= mask).all() and np.array_equal(close_gaps(closed, width), closed), "closing twice is closing"


@settings(deadline=None, max_examples=60)
@given(MASKS, SCALES, st.integers(0, 2**32 - 1))
def test_fraction_of_whole_pixels_is_the_mask_itself(mask: Mask, scale0: tuple[float, float], seed: int) -> None:
    tissue = TissueMask(mask, (8.0, 16.0), Mpp(1, 1, "t"), 0)
    rows, columns = np.indices(mask.shape)
    xy0 = np.stack([columns.ravel() * 8, rows.ravel() * 16], axis=1)
    assert np.array_equal(tissue.fraction(xy0, (8.0, 16.0)), mask.ravel().astype(np.float32))
    whole = (mask.shape[1] * 8.0, mask.shape[0] * 16.0)
    assert abs(float(tissue.fraction(np.zeros((1, 2), np.int64), whole)[0]) - mask.mean()) < 1e-6
    far = np.random.default_rng(seed).integers(10**6, 10**7, (5, 2))
    assert (tissue.fraction(far, scale0) == 0).all(), "outside the mask is bare"
