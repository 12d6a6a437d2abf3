"""Scores: what the models themselves say, averaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pathpipe.errors import StoreError
from pathpipe.explain.scores import slide_scores
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.provenance import Provenance
from pathpipe.store.features import Features
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.testing.bags import random_bag
from pathpipe.tiles.plan import ReadPlan
from pathpipe.training.checkpoint import Checkpoint

TASK = ClassificationTask("grade", ("low", "mid", "high"))
ENCODER = {"name": "uni", "revision": "1", "weights_sha256": "ab" * 32, "transform": "resize 224", "dim": 6}
PLAN = ReadPlan(
    tile_px=256,
    overlap_px=0,
    mpp_wanted=0.5,
    mpp0=(0.5, 0.5),
    level=0,
    downsample=(1.0, 1.0),
    read_px=(256, 256),
    side0=(256.0, 256.0),
    stride0=(256.0, 256.0),
)


def _checkpoint(model: str, seed: int) -> Checkpoint:
    torch.manual_seed(seed)
    built = build_model(Recipe(model, {"hidden": 9}), 6, 3)
    return Checkpoint(
        model=model,
        options=built.options.model_dump(mode="json"),
        wrappers={},
        dim_in=6,
        task=TASK.to_dict(),
        encoder=ENCODER,
        preprocessing={},
        feature_mean=torch.zeros(6),
        feature_std=torch.ones(6),
        fold=seed,
        seed=0,
        best_epoch=1,
        state=built.state_dict(),
    )


def _features(tiles: int = 23) -> Features:
    bag = random_bag(tiles, 6, seed=4) if tiles else None
    values = np.asarray(bag.features, np.float16) if bag else np.zeros((0, 6), np.float16)
    xy0 = np.asarray(bag.xy0) if bag else np.zeros((0, 2), np.int64)
    made = Provenance("extract", 1, {}, {})
    return Features(values, xy0, ENCODER, PLAN, "f", None if bag else "no tissue", made)


def _outputs(model: str, features: Features, seeds: range) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(logits, probabilities, per-tile values) of each model, by one plain forward pass each."""
    outputs = []
    for seed in seeds:
        torch.manual_seed(seed)
        built = build_model(Recipe(model, {"hidden": 9}), 6, 3).eval()
        with torch.no_grad():
            output = built(Bags.pack([Bag(features.features.astype(np.float32))]))
        logits = output.logits[0].double()
        tiles = output.instance_logits.double().softmax(-1) if output.attention is None else output.attention
        outputs.append((logits.numpy(), logits.softmax(-1).numpy(), tiles.double().numpy()))
    return outputs


@pytest.mark.parametrize("model", ["abmil", "gated-abmil"])
def test_attention_is_the_mean_over_models(model: str) -> None:
    features = _features()
    scores = slide_scores([_checkpoint(model, seed) for seed in range(3)], features)
    outputs = _outputs(model, features, range(3))
    assert scores.kind == "attention" and scores.classes == ("low", "mid", "high")
    np.testing.assert_allclose(
        scores.score, np.mean([tiles.mean(axis=1) for _, _, tiles in outputs], axis=0), atol=1e-7
    )
    assert scores.score.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(scores.logits, [logits for logits, _, _ in outputs], atol=1e-6)
    np.testing.assert_allclose(scores.probability, np.mean([p for _, p, _ in outputs], axis=0), atol=1e-7)
    assert scores.probability.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(scores.xy0, features.xy0)


@pytest.mark.parametrize("model", ["mean", "max"])
def test_without_attention_it_is_the_tiles_own_probability_of_the_predicted_class(model: str) -> None:
    features = _features()
    scores = slide_scores([_checkpoint(model, seed) for seed in range(2)], features)
    outputs = _outputs(model, features, range(2))
    chosen = int(np.mean([p for _, p, _ in outputs], axis=0).argmax())
    assert scores.predicted == chosen
    assert scores.kind == f"probability of {TASK.classes[chosen]}"
    np.testing.assert_allclose(scores.score, np.mean([tiles for _, _, tiles in outputs], axis=0)[:, chosen], atol=1e-7)


def test_scores_read_back(tmp_path: Path) -> None:
    scores = slide_scores([_checkpoint("abmil", 0)], _features())
    scores.write(tmp_path / "scores.csv")
    table = pd.read_csv(tmp_path / "scores.csv")
    np.testing.assert_array_equal(table[["x0", "y0"]], scores.xy0)
    np.testing.assert_allclose(table["score"], scores.score, rtol=1e-12)


def test_refuses_features_of_another_encoder() -> None:
    other = replace(_features(), encoder={**ENCODER, "weights_sha256": "cd" * 32})
    with pytest.raises(StoreError, match="cdcd"):
        slide_scores([_checkpoint("abmil", 0)], other)


def test_refuses_a_slide_without_tiles() -> None:
    with pytest.raises(StoreError, match="no tiles: no tissue"):
        slide_scores([_checkpoint("abmil", 0)], _features(0))


def test_refuses_no_models_and_models_of_different_tasks() -> None:
    with pytest.raises(StoreError, match="no model"):
        slide_scores([], _features())
    other = replace(_checkpoint("abmil", 1), task=ClassificationTask("grade", ("high", "low", "mid")).to_dict())
    with pytest.raises(StoreError, match="different tasks"):
        slide_scores([_checkpoint("abmil", 0), other], _features())
