"""Heatmaps painted by sums against painting tile by tile, truth by area, scores that refuse foreign features."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from pathpipe.errors import StoreError
from pathpipe.explain.heatmap import Canvas, draw_heatmap, paint
from pathpipe.explain.scores import Scores, slide_scores
from pathpipe.explain.truth import instance_auroc, read_truth, share_inside
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.registry import build_model
from pathpipe.provenance import Provenance
from pathpipe.settings import HeatmapSettings
from pathpipe.slides.slide import Mpp
from pathpipe.store.features import Features
from pathpipe.tiles.plan import ReadPlan
from pathpipe.tissue.thumbnail import Thumbnail
from pathpipe.training.checkpoint import Checkpoint

ENCODER = {"name": "vit", "weights_sha256": "aa", "dim": 5}
PLAN = ReadPlan(64, 0, 0.5, (0.5, 0.5), 0, (1.0, 1.0), (64, 64), (64.0, 64.0), (64.0, 64.0))


def _thumbnail(shape: tuple[int, int] = (90, 120)) -> Thumbnail:
    return Thumbnail(np.full((*shape, 3), 240, np.uint8), (8.0, 8.0))


@pytest.mark.parametrize("side", [64.0, 100.0, 37.5])
def test_painting_equals_painting_tile_by_tile(side: float) -> None:
    rng = np.random.default_rng(0)
    xy0 = rng.integers(0, 700, (40, 2))
    values = rng.random(40)
    thumbnail = _thumbnail()
    total, count = np.zeros((90, 120)), np.zeros((90, 120))
    for (x, y), value in zip(xy0, values, strict=True):
        x1, x2 = int(x // 8), min(120, int(np.ceil((x + side) / 8)))
        y1, y2 = int(y // 8), min(90, int(np.ceil((y + side) / 8)))
        total[y1:y2, x1:x2] += value
        count[y1:y2, x1:x2] += 1
    slow = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    found = paint(xy0, values, (side, side), thumbnail)
    assert (count > 1).any(), "tiles must overlap for this to show anything"
    assert np.array_equal(np.isnan(found), np.isnan(slow))
    assert np.nanmax(np.abs(found - slow)) < 1e-9


def _features(rows: int = 12, encoder: dict[str, object] | None = None) -> Features:
    rng = np.random.default_rng(0)
    return Features(
        features=rng.normal(size=(rows, 5)).astype(np.float16),
        xy0=np.stack([np.arange(rows) % 4 * 64, np.arange(rows) // 4 * 64], 1).astype(np.int64),
        encoder=encoder or ENCODER,
        plan=PLAN,
        slide_fingerprint="s",
        empty_reason=None if rows else "no tissue found",
        provenance=Provenance("extract", 1, {}, {}),
    )


def _checkpoint(model: str, seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    state = build_model(model, 5, 2, {"hidden": 8}).state_dict()
    return Checkpoint(
        model=model,
        options={"hidden": 8},
        dim_in=5,
        task={"kind": "classification", "target": "label", "classes": ["no", "yes"]},
        encoder=ENCODER,
        preprocessing={},
        feature_mean=torch.zeros(5),
        feature_std=torch.ones(5),
        fold=0,
        seed=seed,
        best_epoch=1,
        state=state,
    )


def test_scores_are_the_models_own_attention_and_logits() -> None:
    checkpoints = [_checkpoint("abmil", 0), _checkpoint("abmil", 1)]
    scores = slide_scores(checkpoints, _features())
    bags = Bags.pack([Bag(_features().features)])
    outputs = [one.build()(bags) for one in checkpoints]
    attention = np.mean([out.attention_per_bag(bags)[0][:, 0].detach().numpy() for out in outputs], axis=0)
    assert scores.kind == "attention" and scores.score == pytest.approx(attention, abs=1e-6)
    assert scores.score.sum() == pytest.approx(1, abs=1e-6)
    assert scores.logits == pytest.approx(np.stack([out.logits[0].detach().numpy() for out in outputs]), abs=1e-6)
    softmax = np.exp(scores.logits) / np.exp(scores.logits).sum(1, keepdims=True)
    assert scores.probability == pytest.approx(softmax.mean(0), abs=1e-6)


def test_models_without_attention_show_probabilities() -> None:
    scores = slide_scores([_checkpoint("mean")], _features())
    assert scores.kind == f"probability of {scores.classes[scores.predicted]}"
    assert ((scores.score > 0) & (scores.score < 1)).all()


def test_refusals() -> None:
    with pytest.raises(StoreError, match="trained on features of name vit"):
        slide_scores([_checkpoint("abmil")], _features(encoder={**ENCODER, "weights_sha256": "bb"}))
    with pytest.raises(StoreError, match="no tiles: no tissue found"):
        slide_scores([_checkpoint("abmil")], _features(0))
    with pytest.raises(StoreError, match="no model"):
        slide_scores([], _features())


def test_ranks() -> None:
    scores = replace(slide_scores([_checkpoint("abmil")], _features(4)), score=np.array([0.1, 0.4, 0.1, 0.4]))
    assert scores.ranks().tolist() == [0.375, 0.875, 0.375, 0.875]


def test_share_inside_by_area() -> None:
    square = np.array([[0.0, 0.0], [96.0, 0.0], [96.0, 64.0], [0.0, 64.0]])
    hole = np.array([[0.0, 0.0], [32.0, 0.0], [32.0, 32.0], [0.0, 32.0]])
    xy0 = np.array([[0, 0], [64, 0], [128, 0], [0, 64]])
    found = share_inside(xy0, (64.0, 64.0), [[square]])
    assert found == pytest.approx([1, 0.5, 0, 0], abs=0.08)
    with_hole = share_inside(xy0, (64.0, 64.0), [[square, hole]])
    assert with_hole[0] == pytest.approx(0.75, abs=0.08)
    assert share_inside(xy0, (64.0, 64.0), []).tolist() == [0, 0, 0, 0]


def test_instance_auroc_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    score, share = rng.random(50), rng.random(50)
    assert instance_auroc(score, share) == pytest.approx(roc_auc_score(share >= 0.5, score))
    assert np.isnan(instance_auroc(score, np.zeros(50)))


def test_truth_files(tmp_path: Path) -> None:
    ring = [[0, 0], [10, 0], [10, 10], [0, 0]]
    features = [
        {"geometry": {"type": "Polygon", "coordinates": [ring]}},
        {"geometry": {"type": "Point", "coordinates": [1, 2]}},
    ]
    (tmp_path / "t.geojson").write_text(json.dumps({"features": features}))
    assert [[one.tolist() for one in rings] for rings in read_truth(tmp_path / "t.geojson")] == [
        [[[0, 0], [10, 0], [10, 10]]]
    ]
    (tmp_path / "t.geojson").write_text("{")
    with pytest.raises(StoreError, match="GeoJSON polygons"):
        read_truth(tmp_path / "t.geojson")


def test_heatmap_is_bright_where_the_score_is() -> None:
    xy0 = np.array([[0, 0], [480, 360]])
    scores = Scores(xy0, np.array([0.1, 0.9]), "attention", ("no", "yes"), np.zeros((1, 2)), np.array([0.2, 0.8]))
    canvas = Canvas(_thumbnail(), Mpp(0.5, 0.5, "t"), (240.0, 240.0), [[np.array([[0.0, 0], [200, 0], [200, 200]])]])
    settings = HeatmapSettings(width_px=600, opacity=1.0, colours="gray")
    picture = draw_heatmap(canvas, scores, "S1: predicted yes (0.80)", settings)
    assert picture == draw_heatmap(canvas, scores, "S1: predicted yes (0.80)", settings), "same bytes"
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("L")).astype(int)
    height, width = pixels.shape
    right = pixels[:, width // 2 : int(width * 0.88)]
    dark = right[int(height * 0.25), int(right.shape[1] * 0.12)]
    bright = right[int(height * 0.7), int(right.shape[1] * 0.7)]
    assert bright - dark > 60
    raw = draw_heatmap(canvas, scores, "S1", HeatmapSettings(width_px=600, scale="raw"))
    assert raw != picture
