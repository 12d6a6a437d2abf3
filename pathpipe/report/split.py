"""Splits on a page: who is in which fold, and what the audit found."""

from __future__ import annotations

from collections.abc import Sequence

from pathpipe.report.blocks import Block, Cell, Heading, Section, Table, Tone, Words
from pathpipe.report.words import counted
from pathpipe.training.audit import Audit, Finding
from pathpipe.training.split_summary import Summary

_TONES: dict[str, Tone] = {"leak": "bad", "warning": "warn"}
_SIGNS = {"leak": "✘ leak", "warning": "! warning", "note": "note"}
_SHOWN = 8


def split_section(
    summary: Summary | None, notes: Sequence[str], kept_out: Sequence[str], audit: Audit | None
) -> Section:
    """Folds and roles, what is worth knowing of them, and the audit's findings."""
    blocks: list[Block] = []
    if summary is not None:
        blocks.append(Table("folds", summary.columns, summary.rows))
    blocks += [Words(f"{note}.") for note in notes]
    if kept_out:
        names = ", ".join(kept_out[:_SHOWN]) + (f" and {len(kept_out) - _SHOWN} more" if len(kept_out) > _SHOWN else "")
        blocks.append(Words(f"{counted(len(kept_out), 'patient')} without a label of any target kept out: {names}."))
    if audit is not None:
        blocks += [Heading("Audit"), *_audit(audit)]
    return Section("splits", "Splits and audit", tuple(blocks))


def _audit(audit: Audit) -> list[Block]:
    said = ", ".join(counted(len(audit.of(name)), name) for name in ("leak", "warning", "note"))
    looked = (
        f"{counted(audit.slides, 'slide')} of {counted(audit.patients, 'patient')} in {counted(audit.folds, 'fold')}"
    )
    blocks: list[Block] = [Words(f"Looked at {looked}, by features of `{audit.encoder}`: {said}.")]
    if audit.findings:
        columns = ("severity", "looked for", "found, and what it means", "who")
        blocks.append(Table("findings", columns, tuple(_finding(one) for one in audit.findings)))
    return blocks


def _finding(one: Finding) -> tuple[Cell | str, ...]:
    members = "; ".join(one.members[:_SHOWN])
    members += f"; and {len(one.members) - _SHOWN} more" if len(one.members) > _SHOWN else ""
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in one.numbers.items())
    return (
        Cell(_SIGNS[one.severity], _TONES.get(one.severity, "")),
        one.kind,
        Cell(one.what, hint=one.meaning, wide=True),
        Cell(members, hint=numbers, wide=True),
    )
