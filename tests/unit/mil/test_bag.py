"""Bags and the two layouts of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pathpipe.errors import StoreError
from pathpipe.mil.bag import Bag, Bags


def _bags() -> list[Bag]:
    first = np.array([[1, 2], [3, 4], [5, 6]], np.float16)
    second = np.array([[7, 8]], np.float16)
    corners = np.array([[0, 0], [256, 0], [0, 256]])
    return [Bag(first, corners, "a", "p"), Bag(second, corners[:1] + 1, "b", "q")]


def test_packed_layout() -> None:
    batch = Bags.pack(_bags())
    assert batch.is_packed and len(batch) == 2
    assert batch.features.dtype == torch.float32
    assert batch.features.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert batch.offsets.tolist() == [0, 3, 4]
    assert batch.lengths == (3, 1)
    assert batch.xy0 is not None and batch.xy0.tolist() == [[0, 0], [256, 0], [0, 256], [1, 1]]


def test_padded_layout() -> None:
    batch = Bags.pad(_bags())
    assert not batch.is_packed and batch.mask is not None
    assert batch.features.tolist() == [[[1, 2], [3, 4], [5, 6]], [[7, 8], [0, 0], [0, 0]]]
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]
    assert batch.offsets.tolist() == [0, 3, 4]
    assert batch.xy0 is not None and batch.xy0[1].tolist() == [[1, 1], [0, 0], [0, 0]]


def test_split_undoes_both_layouts() -> None:
    for batch in (Bags.pack(_bags()), Bags.pad(_bags())):
        assert [part.tolist() for part in batch.split(batch.features)] == [[[1, 2], [3, 4], [5, 6]], [[7, 8]]]


def test_corners_are_dropped_unless_every_bag_has_them() -> None:
    with_corners, _ = _bags()
    assert Bags.pack([with_corners, Bag(np.ones((2, 2)))]).xy0 is None


def test_take_keeps_rows_together() -> None:
    bag = Bag(np.eye(3), np.arange(6).reshape(3, 2), "a", "p", np.array([0, 0, 1]), ("s", "t"))
    taken = bag.take(np.array([2, 0]))
    assert np.asarray(taken.features).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert taken.xy0 is not None and taken.xy0.tolist() == [[4, 5], [0, 1]]
    assert taken.slide is not None and taken.slide.tolist() == [1, 0]
    assert (taken.bag_id, taken.patient_id, taken.slide_ids) == ("a", "p", ("s", "t"))


def test_read_only_features_are_taken() -> None:
    features = np.ones((2, 3), np.float16)
    features.setflags(write=False)
    assert Bags.pack([Bag(features)]).features.sum() == 6


def test_tensors_are_taken() -> None:
    assert Bags.pack([Bag(torch.ones(2, 3, dtype=torch.float16))]).features.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((0, 4)), None, "empty"), "empty: the bag has no instances"),
        ((np.zeros(4), None, "flat"), r"flat: features have shape \(4,\)"),
        ((np.zeros((3, 4)), np.zeros((2, 2)), "odd"), "odd: 3 features but 2 rows of xy0"),
    ],
)
def test_refuses_what_is_no_bag(arguments: tuple, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        Bag(*arguments)


def test_refuses_mixed_widths_and_no_bags() -> None:
    with pytest.raises(StoreError, match="a and b have 3 and 4 features a tile"):
        Bags.pack([Bag(np.zeros((1, 3)), bag_id="a"), Bag(np.zeros((1, 4)), bag_id="b")])
    with pytest.raises(StoreError, match="at least one bag"):
        Bags.pack([])
