"""Models beside each other on a page: their numbers, every pair's difference, and which differences are real."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pathpipe.evaluation.comparison.comparison import Compared, Comparison, PairDifference
from pathpipe.evaluation.evaluation import Evaluation
from pathpipe.report.blocks import Block, Cell, Heading, Plot, Plots, Section, Table, Value, Words
from pathpipe.report.outcomes import Estimate, forest_plot, scatter_plot, survival_plot
from pathpipe.report.plots import precision_recall_plot, reliability_plot, roc_plot
from pathpipe.report.words import counted, interval_text, number, p_text


def verdicts(comparison: Comparison) -> list[str]:
    """One sentence a pair, on the first metric, by which one judges."""
    return [_verdict(one) for one in comparison.differences if one.metric == comparison.differences[0].metric]


def _verdict(one: PairDifference) -> str:
    names = f"`{one.first}` less `{one.second}` in {one.metric}"
    numbers = f"{_signed(one.difference.value)} ({interval_text(one.difference)}), corrected p {p_text(one.p_holm)}"
    return f"{names}: {numbers}: {one.verdict}."


def _signed(value: float) -> str:
    return f"{value:+.3f}" if math.isfinite(value) else "–"


def comparison_section(
    title: str, comparisons: Mapping[str, Comparison], mark: str = "", further: Sequence[Block] = ()
) -> Section:
    """The models on the patients they have in common, target by target.

    Args:
        mark: What tells its ids from those of other comparisons.
        further: Blocks that stand at the end.
    """
    blocks: list[Block] = []
    for at, (target, one) in enumerate(comparisons.items()):
        if len(comparisons) > 1:
            blocks.append(Heading(target))
        blocks += _comparison(one, f"{mark}-{at}" if at else mark)
    return Section(f"comparison{mark}", title, (*blocks, *further))


def _comparison(one: Comparison, mark: str) -> list[Block]:
    counts = ", ".join(f"{count} {name}" for name, count in one.patients.items())
    total = counted(sum(one.patients.values()), "patient")
    level = f"{100 * one.confidence:.0f}%"
    blocks: list[Block] = [
        Words(f"On the {total} that all of them tested ({counts}). Intervals ({level}) by bootstrap over patients."),
        _models(one, mark),
        *(Words(f"{note}.") for note in one.notes),
        Words(
            "A difference is real where the permutation test's p, corrected by Holm for all pairs of the first metric, "
            f"and of all others together, is below {1 - one.confidence:.2g}. Other tests stand beside it for who asks."
        ),
    ]
    drawn = _drawn(one)
    if drawn:
        metric = one.differences[0].metric
        picture = forest_plot(drawn, f"difference in {metric}", 0.0, f"differences{mark}")
        blocks.append(
            Plots((Plot(f"{metric}: first less second; at the dotted line they are alike", picture, "whole"),))
        )
    blocks.append(_differences(one, mark))
    if math.isfinite(one.all_equal_p):
        blocks.append(Words(f"DeLong's test that all areas are alike: p {p_text(one.all_equal_p)}."))
    return blocks


def _models(one: Comparison, mark: str) -> Table:
    """Metrics down, models across."""
    names = list(dict.fromkeys(name for model in one.models for name in model.metrics))
    rows: list[tuple[Value, ...]] = [(name, *(_estimate(model, name) for model in one.models)) for name in names]
    tested: tuple[Value, ...] = ("patients it tested", *(f"{model.patients:,}" for model in one.models))
    return Table(f"models{mark}", ("metric", *(model.name for model in one.models)), (*rows, tested))


def _estimate(model: Compared, name: str) -> str | None:
    found = model.metrics.get(name)
    return (
        None if found is None or not math.isfinite(found.value) else f"{number(found.value)} ({interval_text(found)})"
    )


def _drawn(one: Comparison) -> list[Estimate]:
    first = [pair for pair in one.differences if pair.metric == one.differences[0].metric]
    return [
        (f"{pair.first} less {pair.second}", pair.difference.value, pair.difference.low, pair.difference.high)
        for pair in first
        if math.isfinite(pair.difference.value)
    ]


def _differences(one: Comparison, mark: str) -> Table:
    delong = any(pair.delong is not None for pair in one.differences)
    folds = any(pair.across_folds is not None for pair in one.differences)
    columns = ["metric", "first less second", "difference", "interval", "real?", "p permutation", "p Holm"]
    columns += ["p bootstrap", *(["p DeLong"] if delong else []), *(["p across folds"] if folds else [])]
    return Table(f"pairs{mark}", tuple(columns), tuple(_row(pair, delong, folds) for pair in one.differences))


def _row(pair: PairDifference, delong: bool, folds: bool) -> tuple[Value, ...]:
    verdict = Cell(pair.verdict, "good" if pair.better else "", hint=pair.note or "", wide=True)
    row: list[Value] = [pair.metric, f"{pair.first} less {pair.second}", _signed(pair.difference.value)]
    row += [interval_text(pair.difference), verdict, p_text(pair.p_permutation), p_text(pair.p_holm)]
    row.append(p_text(pair.p_bootstrap))
    row += [p_text(pair.delong.p) if pair.delong else None] if delong else []
    row += [p_text(pair.across_folds.p) if pair.across_folds else None] if folds else []
    return tuple(row)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Name -> the part of it that the others don't share: `abmil-er-uni` and `mean-er-uni` are `abmil` and `mean`."""
    parts = [re.split(r"(?<=[-/])", name) for name in names]
    while len({one[0] for one in parts}) == 1 and all(len(one) > 1 for one in parts):
        parts = [one[1:] for one in parts]
    while len({one[-1] for one in parts}) == 1 and all(len(one) > 1 for one in parts):
        parts = [one[:-1] for one in parts]
    shorter = ["".join(one).strip("-/") for one in parts]
    unlike = len(set(shorter)) == len(names) and all(shorter)
    return dict(zip(names, shorter if unlike else names, strict=True))


def renamed(comparison: Comparison, names: Mapping[str, str]) -> Comparison:
    """The same with other names; what isn't named keeps its own."""

    def one(name: str) -> str:
        return names.get(name, name)

    pairs = [
        replace(
            pair,
            first=one(pair.first),
            second=one(pair.second),
            better=one(pair.better) if pair.better else None,
            verdict=pair.verdict.replace(pair.better, one(pair.better), 1) if pair.better else pair.verdict,
        )
        for pair in comparison.differences
    ]
    models = [replace(model, name=one(model.name)) for model in comparison.models]
    return replace(comparison, models=tuple(models), differences=tuple(pairs))


def curves_section(models: Mapping[str, Evaluation], mark: str, target: str) -> Section | None:
    """Curves of all models in one plot each; None where the target has none.

    Args:
        models: Name -> evaluation, of one target.
        target: For the title where there are several.
    """
    plots: list[Plot] = []
    keys = list(dict.fromkeys(key for one in models.values() for key in one.curves))
    for place, key in enumerate(keys):
        draw = roc_plot if key.startswith("roc") else precision_recall_plot if key.startswith("precision") else None
        curves = [(name, one.curves[key]) for name, one in models.items() if key in one.curves]
        if draw is not None:
            plots.append(Plot(key.replace("roc", "ROC", 1), draw(curves, f"{key}-{place}{mark}")))
    points = [(name, one.calibration.reliability) for name, one in models.items() if one.calibration is not None]
    if points:
        plots.append(Plot("Reliability, as they are", reliability_plot(points, f"reliability{mark}")))
    for name, one in models.items():
        at = f"{len(plots)}{mark}"
        if "scatter" in one.curves:
            plots.append(Plot(name, scatter_plot(one.curves["scatter"], None, target or "value", f"scatter-{at}")))
        if one.risk_groups is not None:
            picture = survival_plot(one.risk_groups.groups, "time", f"survival-{at}")
            plots.append(Plot(f"{name}: Kaplan-Meier curves by predicted risk", picture, "double"))
    if not plots:
        return None
    title = f"Curves: {target}" if target else "Curves"
    words = Words("Each model on all of its own test patients.")
    return Section(f"curves{mark}", title, (words, Plots(tuple(plots))))


def settings_section(models: Mapping[str, Mapping[str, str]]) -> Section:
    """Settings in which the models differ.

    Args:
        models: Name -> dotted key -> value.
    """
    keys = list(dict.fromkeys(key for one in models.values() for key in one))
    rows = []
    for key in keys:
        values = [one.get(key, "–") for one in models.values()]
        if len(set(values)) > 1:
            rows.append((Cell(f"`{key}`"), *(Cell(value, wide=True) for value in values)))
    table = Table("settings", ("setting", *models), tuple(rows))
    block = table if rows else Words("All settings that decide results are the same.")
    return Section("settings-that-differ", "Settings that differ", (block,))


def sources_section(inputs: Mapping[str, str], names: Mapping[str, str]) -> Section:
    """What the page was made from.

    Args:
        inputs: Name -> fingerprint.
        names: Name -> what it is called on the page.
    """
    rows = tuple((names[name], name, Cell(f"`{value}`")) for name, value in inputs.items())
    columns = ("here", "model", "fingerprint of its evaluation")
    return Section("reproduce", "Made from", (Table("sources", columns, rows),))
