"""Tables for people, and the same rows as CSV or JSON for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pathpipe.execution.pipeline import Outcome
from pathpipe.execution.receipt import Receipt
from pathpipe.run import Run
from pathpipe.settings import RunSettings

SUMMARY = ("stage", "units", "done", "current", "empty", "failed", "stale", "seconds", "where")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], form: str = "table") -> None:
    """Print rows on stdout.

    Args:
        form: `table` (tab-separated when stdout is not a terminal), `csv` or `json`.
    """
    if form == "json":
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2, ensure_ascii=False))
        return
    console = Console()
    if form == "csv" or not console.is_terminal:
        writer = csv.writer(sys.stdout, delimiter="," if form == "csv" else "\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([["" if value is None else value for value in row] for row in rows])
        return
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", collapse_padding=True, pad_edge=False)
    for index, column in enumerate(columns):
        numbers = all(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else Text(str(value)) for value in row))
    console.print(table)


def summary_rows(outcome: Outcome, run: Run, settings: RunSettings) -> list[list[Any]]:
    """What became of every stage that was reached: a row a stage; see `SUMMARY`. Seconds are added up over units."""
    from pathpipe.stages.chain import for_encoder
    from pathpipe.stages.receipts import where_of

    rows = []
    for label, units in outcome.receipts.items():
        stage, _, encoder = label.partition(" ")
        own = for_encoder(settings, encoder) if encoder else settings
        states = [receipt.state for receipt in units.values()]
        seconds = sum(receipt.seconds for receipt in units.values() if receipt.state != "current")
        where = f"{run.folder}/{where_of(run, stage, next(iter(units)), own)}" if units else ""
        numbers = [states.count(state) for state in ("done", "current", "empty", "failed", "stale")]
        rows.append([label, len(units), *numbers, round(seconds, 1), where])
    return rows


def print_outcome(outcome: Outcome, console: Console, counts: bool = True) -> None:
    """The units that need a look, one row a reason, and a closing count of every stage."""
    trouble = outcome.of("failed", "stale", "empty")
    if trouble:
        table = Table(box=box.SIMPLE_HEAD, header_style="bold")
        for column in ("stage", "unit", "state", "reason"):
            table.add_column(column, overflow="fold")
        for keys, receipt in _grouped(trouble):
            hint = f"\n[dim]hint: {_escape(receipt.hint)}[/dim]" if receipt.hint else ""
            table.add_row(receipt.stage, _escape(keys), receipt.state, _escape(receipt.reason or "") + hint)
        if console.is_terminal:
            console.print(table)
        else:
            for keys, receipt in _grouped(trouble):
                hint = f" (hint: {receipt.hint})" if receipt.hint else ""
                console.print(
                    f"{receipt.state}: {receipt.stage} {keys}: {receipt.reason}{hint}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
    for stage, units in outcome.receipts.items() if counts else ():
        states = [receipt.state for receipt in units.values()]
        counted = [f"{states.count(s)} {s}" for s in ("done", "current", "empty", "failed", "stale") if s in states]
        console.print(f"{stage}: {' · '.join(counted)}", highlight=False)


def _grouped(receipts: Sequence[Receipt]) -> list[tuple[str, Receipt]]:
    groups: dict[tuple[str, str, str | None], list[Receipt]] = {}
    said: set[tuple[str, str | None]] = set()
    for receipt in receipts:
        if (receipt.key, receipt.reason) in said:  # an empty slide is empty in every stage: once is enough
            continue
        said.add((receipt.key, receipt.reason))
        groups.setdefault((receipt.stage, receipt.state, receipt.reason), []).append(receipt)
    named = []
    for members in groups.values():
        keys = ", ".join(member.key for member in members[:3])
        keys += f" and {len(members) - 3} more" if len(members) > 3 else ""
        named.append((keys, members[0]))
    return named


def _escape(text: str | None) -> str:
    return (text or "").replace("[", "\\[")
