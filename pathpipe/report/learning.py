"""Learning on a page: the losses of every fold and seed, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
from matplotlib.figure import Figure

from pathpipe.report.blocks import Block, Plot, Plots, Section, Table, Value, Words
from pathpipe.report.drawing import COLOURS, GREY, STYLE, svg

MOST_PANELS = 20


@dataclass(frozen=True)
class LearningCurve:
    """One fold and seed, one value an epoch.

    Attributes:
        best_epoch: The one that was kept, from 1.
        measures: Name -> values of further measures on validation patients.
    """

    fold: int
    seed: int
    train_loss: tuple[float, ...]
    val_loss: tuple[float, ...]
    best_epoch: int
    measures: dict[str, tuple[float, ...]] = field(default_factory=dict)


def learning_section(curves: Sequence[LearningCurve]) -> Section | None:
    """Plots and a table; None where nothing was trained."""
    if not curves:
        return None
    folds = sorted({curve.fold for curve in curves})
    text = "Loss by epoch: training thin and grey, validation thick; the dot is the epoch that was kept."
    if len(folds) > MOST_PANELS:
        text += f" Drawn: the first {MOST_PANELS} of {len(folds)} folds."
    if len({curve.seed for curve in curves}) > 1:
        text += " One colour a seed."
    drawn = [Plot("Loss by epoch, a panel a fold", learning_plot(curves), "whole")]
    blocks: tuple[Block, ...] = (Words(text), Plots(tuple(drawn)), _table(curves))
    return Section("training", "Learning curves", blocks)


def _table(curves: Sequence[LearningCurve]) -> Table:
    names = list(dict.fromkeys(name for curve in curves for name in curve.measures))
    rows: list[tuple[Value, ...]] = []
    for curve in curves:
        at = curve.best_epoch - 1
        measures = [curve.measures[name][at] if name in curve.measures else None for name in names]
        losses = curve.train_loss[at], curve.val_loss[at]
        rows.append((curve.fold, curve.seed, len(curve.val_loss), curve.best_epoch, *losses, *measures))
    columns = ("fold", "seed", "epochs", "kept epoch", "training loss there", "validation loss there")
    shown = tuple(f"validation {name.removeprefix('val_')} there" for name in names)
    return Table("learning", (*columns, *shown), tuple(rows))


def learning_plot(curves: Sequence[LearningCurve]) -> str:
    """Training (thin) and validation (thick) loss, a panel a fold, a colour a seed; a dot at the epoch kept."""
    folds = sorted({curve.fold for curve in curves})[:MOST_PANELS]
    seeds = sorted({curve.seed for curve in curves})
    columns = min(5, len(folds))
    rows = -(-len(folds) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.15 * columns, 1.75 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, fold in zip(grid.flat, folds, strict=False):
            for curve in (one for one in curves if one.fold == fold):
                colour = COLOURS[seeds.index(curve.seed) % len(COLOURS)]
                epochs = range(1, len(curve.val_loss) + 1)
                axes.plot(epochs, curve.train_loss, color=GREY, linewidth=1)
                axes.plot(epochs, curve.val_loss, color=colour, linewidth=1.8)
                kept = curve.val_loss[curve.best_epoch - 1]
                if math.isfinite(kept):
                    axes.plot(curve.best_epoch, kept, "o", color=colour, markersize=5)
            axes.set_title(f"fold {fold}")
        for axes in list(grid.flat)[len(folds) :]:
            axes.set_axis_off()
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel("loss", fontsize=9)
        return svg(figure, "learning")
