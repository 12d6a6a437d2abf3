"""Explanations on a page: heatmaps and tiles of each class, and whether they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pathpipe.evaluation.curves import Curve
from pathpipe.report.blocks import Block, Cell, Gallery, Heading, Picture, Plot, Plots, Section, Table, Value, Words
from pathpipe.report.drawing import legend, lines, plot, svg
from pathpipe.report.words import counted, number

SURE, MISTAKEN = 3, 2  # slides shown of each class
_GRID = np.linspace(0.05, 1, 20)  # shares of tiles kept, on which curves of slides are averaged


@dataclass(frozen=True)
class Explained:
    """One heatmap: a slide, and what of its patient's prediction is explained.

    Attributes:
        aim: A class, the name of a number, or `risk`.
        kind: `class`, `number` or `risk`.
        value: Its probability, or the number.
        right: Whether the aim is the patient's label; None where that says nothing.
        in_truth: Share of the score inside the marked regions, and of the area.
        auroc: Of tiles inside them; None where nothing is marked.
        gains: `deletion` and `insertion` over random order.
        curves: `deletion`, `insertion` and `random`: share of tiles kept against the value.
        picture: File of the heatmap.
        sheet: File of its tiles; None where there is none.
    """

    slide_id: str
    label: str
    predicted: str
    aim: str
    kind: str
    score: str
    value: float
    tiles: int
    right: bool | None
    in_truth: tuple[float, float] | None
    auroc: float | None
    gains: Mapping[str, float]
    curves: Mapping[str, Curve]
    picture: str
    sheet: str | None

    @property
    def predicted_so(self) -> bool:
        """Whether a class that is explained is the one that is predicted; of numbers and risks always."""
        return self.kind != "class" or self.aim in (self.predicted, *self.predicted.split(", "))

    @property
    def key(self) -> tuple[str, str]:
        """What it is of: slide and aim."""
        return self.slide_id, self.aim


def chosen(explained: Sequence[Explained]) -> dict[str, list[Explained]]:
    """Aim -> the heatmaps to show: of a class the surest predictions and mistakes; of numbers highest and lowest."""
    found: dict[str, list[Explained]] = {}
    for one in explained:
        found.setdefault(one.aim, []).append(one)
    return {aim: _chosen(members) for aim, members in sorted(found.items())}


def _chosen(members: Sequence[Explained]) -> list[Explained]:
    ordered = sorted(members, key=lambda one: -one.value)
    if members[0].kind != "class":
        few = len(ordered) <= SURE + MISTAKEN
        return ordered if few else [*ordered[:SURE], *ordered[-MISTAKEN:]]
    # asked about one class, or about every, a heatmap may be of a class that isn't predicted
    ordered = [one for one in ordered if one.predicted_so] or ordered
    right = sorted((one for one in ordered if one.right is not False), key=lambda one: one.auroc is None)
    return [*right[:SURE], *[one for one in ordered if one.right is False][:MISTAKEN]]


def explained_section(
    explained: Sequence[Explained],
    pictures: Mapping[tuple[str, str], tuple[bytes, bytes | None]],
    checks: Table | None,
    where: str,
) -> Section | None:
    """The gallery by class, the checks, and a table of all heatmaps; None where there is none.

    Args:
        pictures: Key -> JPEG of the heatmap and of its tiles, of those that `chosen` names.
        where: Folder of the run that holds all of them.
    """
    if not explained:
        return None
    score = " and ".join(dict.fromkeys(one.score for one in explained))
    every = chosen(explained)
    some = [aim for aim, members in every.items() if any(one.key in pictures for one in members)]
    whose = "each class" if len(some) == len(every) else f"{len(some)} of {len(every)} classes"
    text = f"Scored ({score}) by the models that never saw the patient, from stored features. Shown: of {whose} the "
    text += "slides it is predicted of with the most confidence, those with marked regions first, and the most "
    text += f"confident mistakes; all {counted(len(explained), 'heatmap')} are in `{where}`."
    blocks: list[Block] = [Words(text)]
    for members in every.values():
        shown = [one for one in members if one.key in pictures]
        if not shown:
            continue
        blocks.append(Heading(_heading(shown[0])))
        blocks.append(Gallery(tuple(_heatmap(one, pictures[one.key][0]) for one in shown), wide=True))
        sheets = tuple(_sheet(one, sheet) for one in shown if (sheet := pictures[one.key][1]) is not None)
        if sheets:
            blocks.append(Gallery(sheets, wide=True))
    if checks is not None or any(one.curves for one in explained):
        blocks += [Heading("Do the explanations hold?"), *_checks(explained, checks)]
    return Section("heatmaps", "Heatmaps and tiles", (*blocks, _table(explained)), "Heatmaps")


def _heading(one: Explained) -> str:
    if one.kind != "class":
        return f"Prediction of `{one.aim}`"
    return f"Predicted `{one.aim}`" if one.predicted_so else f"`{one.aim}`, predicted of no slide"


def _heatmap(one: Explained, jpeg: bytes) -> Picture:
    alt = f"Slide {one.slide_id} and its heatmap"
    return Picture(jpeg, alt, _caption(one), "bad" if one.right is False else "")


def _sheet(one: Explained, jpeg: bytes) -> Picture:
    alt = f"Tiles of slide {one.slide_id} with the highest and the lowest scores"
    return Picture(jpeg, alt, f"{one.slide_id}: tiles that score highest and lowest")


def _caption(one: Explained) -> str:
    label = f", labelled {one.label}" if one.label else ""
    parts = [f"{one.slide_id}{label}: {one.aim} {number(one.value)}", counted(one.tiles, "tile"), one.score]
    if one.right is False:
        parts.insert(1, "✘ mistaken")
    if one.auroc is not None:
        parts.append(f"tiles inside the marked regions are ranked with AUROC {one.auroc:.2f}")
    return " · ".join(parts)


def _checks(explained: Sequence[Explained], checks: Table | None) -> list[Block]:
    blocks: list[Block] = [
        Words(
            "Deletion takes the highest tiles away first, insertion begins with them; against tiles in random order, a "
            "faithful score makes the prediction fall sooner, or rise sooner. One slide, one vote in the curves; "
            "intervals in the table are of patients."
        )
    ]
    drawn = _mean_curves(explained)
    if drawn:
        with plot() as (figure, axes):
            lines(axes, drawn)
            axes.set_xlabel("share of tiles kept")
            axes.set_ylabel("prediction (mean of slides)")
            legend(axes)
        blocks.append(Plots((Plot("Deletion and insertion", svg(figure, "deletion")),)))
    return [*blocks, checks] if checks is not None else blocks


def _mean_curves(explained: Sequence[Explained]) -> list[tuple[str, Curve]]:
    """Means over slides on one grid; of probabilities only, which have one unit."""
    first = {one.slide_id: one for one in reversed(explained)}  # of several explanations of a slide
    members = [one for one in first.values() if one.kind == "class" and one.curves]
    if not members:
        return []
    drawn = []
    for name in ("deletion", "insertion", "random"):
        values = [np.interp(_GRID, one.curves[name].x, one.curves[name].y) for one in members]
        drawn.append((name, Curve(_GRID.tolist(), np.mean(values, axis=0).tolist())))
    return drawn


def _table(explained: Sequence[Explained]) -> Table:
    truth = any(one.in_truth is not None for one in explained)
    gains = any(one.gains for one in explained)
    names = ["slide", "labelled", "predicted", "explained", "its value", "tiles"]
    names += ["score in truth", "area in truth", "AUROC in truth"] if truth else []
    names += ["deletion gain", "insertion gain"] if gains else []
    return Table("explained", tuple(names), tuple(_row(one, truth, gains) for one in explained))


def _row(one: Explained, truth: bool, gains: bool) -> tuple[Value, ...]:
    aim = Cell(f"{one.aim} ✘", "bad") if one.right is False else one.aim
    row: list[Value] = [one.slide_id, one.label, one.predicted, aim, one.value, one.tiles]
    row += [*(one.in_truth or (None, None)), one.auroc] if truth else []
    row += [one.gains.get("deletion"), one.gains.get("insertion")] if gains else []
    return tuple(row)
