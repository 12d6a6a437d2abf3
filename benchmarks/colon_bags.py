"""Colon bags: ABMIL on nucleus patches and on a tile grid, beside six colours, with attention against the nuclei.

    python benchmarks/colon_bags.py DATA/bags/crchisto_colon_100 --vit DATA/weights/FILE.safetensors [--cache FOLDER]

100 H&E images of 500 x 500 px, 51 of which hold epithelium, with 22,444 nucleus centres of known kind. A bag is (a) the
27 x 27 px patches around the nucleus centres through the default encoder, (b) a grid of 100 px tiles through the ViT
given. Ten-fold cross-validation over images, repeated; the epoch is chosen on validation bags. The baseline is logistic
regression on the mean and standard deviation of R, G and B.
"""

from __future__ import annotations

import argparse
import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from pathpipe.encoders.load import load_encoder
from pathpipe.mil.bag import Bag, Bags
from pathpipe.settings import SplitSettings, TrainSettings
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.training.fold import FoldData
from pathpipe.training.folds import make_splits
from pathpipe.training.trainer import train_fold

PATCH_PX, TILE_PX = 27, 100
TASK = ClassificationTask("epithelium", ("0", "1"))
MODELS = ("mean", "max", "abmil", "gated-abmil")
SETTINGS: dict[str, Any] = {
    "epochs": 40,
    "min_epochs": 10,
    "patience": 10,
    "lr": 5e-4,
    "batch_size": 4,
    "model_settings": {"hidden": 128},  # 70 bags teach no more
}


@dataclass(frozen=True)
class Images:
    """The data set: labels, and features of every bag with whether each instance holds an epithelial nucleus."""

    labels: dict[str, str]
    bags: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]


def read_images(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, str], pd.DataFrame]:
    """name -> (500, 500, 3) pixels, name -> label, nuclei with columns image, x, y, type."""
    table = pd.read_csv(folder / "labels.csv")
    names = [Path(name).stem for name in table["file"]]
    pixels = {name: np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in names}
    return pixels, dict(zip(names, table["label"].astype(str), strict=True)), pd.read_csv(folder / "nuclei.csv")


def nucleus_patches(pixels: np.ndarray, nuclei: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(N, 27, 27, 3) patches around the nuclei of one image, mirrored at its edge, and whether each is epithelial."""
    half = PATCH_PX // 2
    padded = np.pad(pixels, ((half, half), (half, half), (0, 0)), mode="reflect")
    x, y = (nuclei[name].to_numpy().round().astype(int).clip(0, pixels.shape[0] - 1) for name in ("x", "y"))
    patches = np.stack([padded[top : top + PATCH_PX, left : left + PATCH_PX] for left, top in zip(x, y, strict=True)])
    return patches, (nuclei["type"] == "epithelial").to_numpy()


def grid_tiles(pixels: np.ndarray, nuclei: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(25, 100, 100, 3) tiles of one image, and whether each holds an epithelial nucleus."""
    count = pixels.shape[0] // TILE_PX
    tiles = pixels.reshape(count, TILE_PX, count, TILE_PX, 3).swapaxes(1, 2).reshape(-1, TILE_PX, TILE_PX, 3)
    found = np.zeros((count, count), bool)
    epithelial = nuclei[nuclei["type"] == "epithelial"]
    rows, columns = (np.clip(epithelial[name].to_numpy() // TILE_PX, 0, count - 1).astype(int) for name in ("y", "x"))
    found[rows, columns] = True
    return tiles, found.ravel()


def read_bags(folder: Path, kind: str, encoder: tuple[str, str | None], cache: Path) -> Images:
    """Features of all bags of one kind, from the cache where they are there."""
    pixels, labels, nuclei = read_images(folder)
    cut = nucleus_patches if kind == "nuclei" else grid_tiles
    bags, truth = {}, {}
    cache.mkdir(parents=True, exist_ok=True)
    for name, image in pixels.items():
        tiles, truth[name] = cut(image, nuclei[nuclei["image"] == name])
        kept = cache / f"{kind}-{name}.npy"
        if not kept.exists():
            np.save(kept, load_encoder(encoder[0], encoder[1], "cpu").embed(np.ascontiguousarray(tiles)))
        bags[name] = np.load(kept)
    return Images(labels, bags, truth)


def repeat_of(images: Images, model: str, repeat: int) -> tuple[dict[str, float], dict[str, float]]:
    """Probability of every image when tested, and instance AUROC of its attention where it has both kinds of nuclei."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    splits = make_splits(images.labels, SplitSettings(folds=10, val_fraction=0.15, seed=repeat))
    bags = {name: Bag(one, bag_id=name, patient_id=name) for name, one in images.bags.items()}
    labels = {name: (label,) for name, label in images.labels.items()}
    probability, instance = {}, {}
    for fold in splits.folds:
        data = FoldData.of(splits, fold, bags, labels)
        trained = train_fold(data, TASK, TrainSettings(model=model, **SETTINGS), seed=repeat)
        scores = TASK.scores(trained.logits["test"])[:, 1]
        probability |= dict(zip(data.roles["test"], scores.tolist(), strict=True))
        for name in data.roles["test"]:
            truth = images.truth[name]
            if truth.all() or not truth.any():
                continue
            with torch.no_grad():
                output = trained.model(Bags.pack([bags[name]]))
            of_instances = output.instance_logits[:, 1] - output.instance_logits[:, 0]
            shown = of_instances if output.attention is None else output.attention.mean(1)
            instance[name] = float(roc_auc_score(truth, shown.numpy()))
    return probability, instance


def colours_of(folder: Path, repeat: int) -> dict[str, float]:
    """Probability of every image by its six colours."""
    pixels, labels, _ = read_images(folder)
    numbers = {name: np.r_[one.mean((0, 1)), one.std((0, 1))] for name, one in pixels.items()}
    splits = make_splits(labels, SplitSettings(folds=10, val_fraction=0.15, seed=repeat))
    found: dict[str, float] = {}
    for fold in splits.folds:
        train = [*splits.patients(fold, "train"), *splits.patients(fold, "val")]
        test = splits.patients(fold, "test")
        scaler = StandardScaler().fit([numbers[name] for name in train])
        fitted = LogisticRegression().fit(
            scaler.transform([numbers[name] for name in train]), [labels[name] for name in train]
        )
        found |= dict(
            zip(test, fitted.predict_proba(scaler.transform([numbers[name] for name in test]))[:, 1], strict=True)
        )
    return found


def row_of(name: str, labels: dict[str, str], repeats: list[dict[str, float]], instance: list[dict[str, float]]) -> str:
    """A line of the table: means over repeats, intervals by bootstrap over images."""
    names = sorted(labels)
    truth = np.array([labels[one] == "1" for one in names])
    scores = np.array([[one[image] for image in names] for one in repeats])
    rng = np.random.default_rng(0)
    right, values = ((scores > 0.5) == truth).mean(0), []
    for _ in range(1000):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(truth == kind), (truth == kind).sum()) for kind in (True, False)]
        )
        values.append([right[rows].mean(), np.mean([roc_auc_score(truth[rows], one[rows]) for one in scores])])
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    area = np.mean([roc_auc_score(truth, one) for one in scores])
    found = [value for one in instance for value in one.values()]
    pointed = f"{np.mean(found):.3f}" if found else ""
    return (
        f"| {name} | {right.mean():.3f} ({low[0]:.3f}-{high[0]:.3f}) "
        f"| {area:.3f} ({low[1]:.3f}-{high[1]:.3f}) | {pointed} |"
    )


def main() -> None:
    """Extract what is missing, train and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vit", help="Weights of timm's vit_small_patch14_dinov2; without it the grid is left out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--cache", type=Path, default=Path("colon_features"))
    given = parser.parse_args()
    kinds: dict[str, tuple[str, str | None]] = {"nuclei": ("efficientnet-lite0", None)}
    if given.vit:
        kinds["grid"] = ("dinov2-s", given.vit)
    print("| bags and model | accuracy | AUROC | instance AUROC |\n|---|---|---|---|")
    labels = read_images(given.folder)[1]
    colours = [colours_of(given.folder, repeat) for repeat in range(given.repeats)]
    print(row_of("six colours, logistic regression", labels, colours, []), flush=True)
    for kind, encoder in kinds.items():
        images = read_bags(given.folder, kind, encoder, given.cache)
        with ProcessPoolExecutor(given.workers) as pool:
            jobs = {m: [pool.submit(repeat_of, images, m, r) for r in range(given.repeats)] for m in MODELS}
            for model, parts in jobs.items():
                results = [part.result() for part in parts]
                name = f"{kind}, {model}"
                print(row_of(name, labels, [r[0] for r in results], [r[1] for r in results]), flush=True)


if __name__ == "__main__":
    main()
