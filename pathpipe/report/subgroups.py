"""Subgroups on a page: does the model work as well for everyone?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pathpipe.evaluation.bootstrap import Interval
from pathpipe.evaluation.evaluation import Evaluation, Subgroup
from pathpipe.report.blocks import Block, Cell, Heading, Plot, Plots, Table, Value, Words
from pathpipe.report.outcomes import Estimate, forest_plot
from pathpipe.report.words import interval_text, number

_MOST_DRAWN = 24


def subgroup_blocks(found: Evaluation, mark: str) -> list[Block]:
    """A plot of the first metric and a table of all; nothing where there are no subgroups."""
    if not found.subgroups:
        return []
    name = next(iter(found.metrics))
    names = list(dict.fromkeys(name for one in found.subgroups for name in one.metrics))
    blocks: list[Block] = [
        Heading("Subgroups"),
        Words(
            "The same predictions, patients of one value at a time. Intervals that overlap are no proof of equality."
        ),
    ]
    rows = _estimates(found.subgroups, name)
    if rows:
        whole = found.metrics[name]
        picture = forest_plot(
            [("all", whole.value, whole.low, whole.high), *rows], name, whole.value, f"subgroups{mark}"
        )
        blocks.append(Plots((Plot(f"{name} by subgroup; the dotted line is of all patients", picture, "whole"),)))
    table = tuple(_row(one, names) for one in found.subgroups)
    columns = ("column", "value", "patients", "of them", *names)
    return [*blocks, Table(f"subgroups{mark}", columns, table)]


def _estimates(subgroups: Sequence[Subgroup], name: str) -> list[Estimate]:
    known = [(one, one.metrics[name]) for one in subgroups if name in one.metrics]
    return [
        (f"{one.column}: {one.value} ({one.patients})", number.value, number.low, number.high)
        for one, number in known
        if math.isfinite(number.value)
    ][:_MOST_DRAWN]


def _row(one: Subgroup, names: Sequence[str]) -> tuple[Value, ...]:
    counts = ", ".join(f"{count} {name}" for name, count in one.counts.items())
    value = Cell(one.value, hint=one.note or "")
    return (one.column, value, one.patients, counts, *(_cell(one.metrics.get(name)) for name in names))


def _cell(one: Interval | None) -> Value:
    if one is None or not math.isfinite(one.value):
        return None
    return f"{number(one.value)} ({interval_text(one)})"
