"""Feature files become one bag a patient; what doesn't belong together is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pathpipe.errors import StoreError
from pathpipe.training import loading
from pathpipe.training.loading import load_bags

ENCODER = {"name": "uni", "revision": "1", "weights_sha256": "ab", "transform": "resize 224", "dim": 2}
PATIENTS = {"s1": "q", "s2": "p", "s3": "q", "s4": "r"}
Offer = Callable[..., Path]


@pytest.fixture
def files() -> dict[Path, Any]:
    """Path -> what `read_features` gives."""
    return {}


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, files: dict[Path, Any]) -> Offer:
    """Put features behind a path."""
    monkeypatch.setattr(loading, "read_features", files.__getitem__)

    def add(slide_id: str, rows: int, first: float = 0.0, **encoder: Any) -> Path:
        path = Path(f"{slide_id}.h5")
        features = (first + np.arange(rows * 2).reshape(rows, 2)).astype(np.float16)
        xy0 = np.arange(rows * 2).reshape(rows, 2) + int(slide_id[1:]) * 1000
        files[path] = SimpleNamespace(features=features, xy0=xy0, encoder={**ENCODER, **encoder})
        return path

    return add


def test_slides_of_a_patient_are_merged_in_order_of_slide_id(offer: Offer) -> None:
    loaded = load_bags({"s3": offer("s3", 1, first=50), "s1": offer("s1", 2), "s2": offer("s2", 1)}, PATIENTS)
    assert list(loaded.bags) == ["p", "q"]
    bag = loaded.bags["q"]
    assert bag.features.dtype == np.float16
    assert np.asarray(bag.features).tolist() == [[0, 1], [2, 3], [50, 51]]
    assert bag.xy0 is not None and bag.xy0.tolist() == [[1000, 1001], [1002, 1003], [3000, 3001]]
    assert bag.slide is not None and bag.slide.tolist() == [0, 0, 1]
    assert (bag.slide_ids, bag.bag_id, bag.patient_id) == (("s1", "s3"), "q", "q")
    assert loaded.encoder == ENCODER
    assert loaded.skipped == ()


def test_empty_slides_are_skipped_and_named(offer: Offer) -> None:
    loaded = load_bags({"s1": offer("s1", 0), "s3": offer("s3", 2), "s4": offer("s4", 0)}, PATIENTS)
    assert list(loaded.bags) == ["q"] and loaded.bags["q"].slide_ids == ("s3",)
    assert loaded.skipped == ("s1 has no tiles", "s4 has no tiles")


@pytest.mark.parametrize("empty", [True, False])
def test_refuses_when_nothing_is_left(offer: Offer, empty: bool) -> None:
    with pytest.raises(StoreError, match="no slide has features"):
        load_bags({"s1": offer("s1", 0)} if empty else {}, PATIENTS)


@pytest.mark.parametrize(("key", "value"), [("weights_sha256", "cd"), ("transform", "resize 96"), ("revision", "2")])
def test_refuses_mixed_encoders(offer: Offer, key: str, value: str) -> None:
    message = f"s1.h5 and s2.h5: .* two encoders: `uni` .{key} {ENCODER[key]}. and `uni` .{key} {value}."
    with pytest.raises(StoreError, match=message):
        load_bags({"s1": offer("s1", 1), "s2": offer("s2", 1, **{key: value})}, PATIENTS)


def test_refuses_features_that_are_not_finite(offer: Offer, files: dict[Path, Any]) -> None:
    path = offer("s2", 3)
    files[path].features[[0, 2], 1] = [np.inf, np.nan]
    with pytest.raises(StoreError, match=r"s2.h5: 2 of 3 tiles have features that are not finite"):
        load_bags({"s1": offer("s1", 1), "s2": path}, PATIENTS)
