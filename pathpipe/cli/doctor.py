"""`pathpipe doctor`: what the slides are and what is wrong with them, before hours are spent on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathpipe.cli.options import origins, with_settings
from pathpipe.cli.session import stderr_console
from pathpipe.errors import MissingError, SettingsError
from pathpipe.url import place

if TYPE_CHECKING:
    from pathpipe.cohort import Cohort
    from pathpipe.settings import RunSettings
    from pathpipe.slides.doctor import Diagnosis

_STATES = ("sound", "damaged", "unreadable")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("doctor")(doctor)


@with_settings("slide", "execution:workers")
def doctor(
    slides: Annotated[
        str | None,
        typer.Argument(help="A slide, a folder or bucket prefix of slides, a cohort table (CSV) or a run folder"),
    ] = None,
    tiles: Annotated[int, typer.Option("--tiles", min=0, help="Random tiles to read of every level")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the places of those tiles")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON (docs/slides.md lists its keys)")] = False,
    readers: Annotated[
        bool, typer.Option("--readers", help="List the readers and what they are for, and stop")
    ] = False,
    *,
    given: dict[str, dict[str, Any]],
) -> None:
    """Examine slides: format, size, levels, resolution and who states it, other pictures inside, damage, duplicates.

    Opens every slide and reads its corner and a few random tiles of every level. A slide that crashes its reader costs
    nothing but itself. Exits 1 when a slide is damaged or can't be opened. Writes nothing.
    """
    from pathpipe.cli.tables import print_table
    from pathpipe.errors import ExitCode
    from pathpipe.settings import RunSettings, merge
    from pathpipe.slides.doctor import Examination, with_duplicates
    from pathpipe.slides.open import refuse_unknown_reader

    if readers:
        print_table(["reader", "from", "for"], _reader_rows(), "json" if as_json else "table")
        return
    settings, _ = merge(RunSettings, origins(given))
    cohort = _cohort(slides)
    refuse_unknown_reader(settings.slide.reader)
    how = Examination(settings.slide.reader, settings.slide.mpp_policy, tiles, seed)
    found = with_duplicates(_examine_all(cohort, how, settings))
    if as_json:
        _print_json(found)
    elif len(found) == 1:
        print_table(["field", "value"], _one_slide(found[0]))
    else:
        _print_many(found)
    if any(one.state != "sound" for one in found):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _reader_rows() -> list[list[str]]:
    from pathpipe.slides.open import READERS, READERS_ARE_FOR

    rows = []
    for name in READERS.names():
        try:
            purpose = READERS_ARE_FOR.get(name) or (READERS[name].__doc__ or "").strip().partition("\n")[0]
        except MissingError as error:
            purpose = error.what
        rows.append([name, READERS.source(name), purpose])
    return rows


def _cohort(slides: str | None) -> Cohort:
    from pathpipe.cohort import Cohort
    from pathpipe.run import Run

    if slides is None:
        raise SettingsError("nothing to examine", hint="give a slide, a folder of slides or a cohort table")
    source = place(slides)
    if isinstance(source, Path) and source.is_dir() and Run.exists(source):
        return Run.open(source).cohort
    return Cohort.read(source)


def _examine_all(cohort: Cohort, how: Any, settings: RunSettings) -> list[Diagnosis]:
    from functools import partial

    from rich.progress import Progress as Bars

    from pathpipe.execution.processes import Hearing, cores, run_in_processes
    from pathpipe.progress import silent
    from pathpipe.slides.doctor import examine_one, unreadable

    def died(key: str, exitcode: int | None) -> Diagnosis:
        reason = f"its reader crashed (exit {exitcode}), or memory ran out"
        return unreadable(cohort[key], reason, "try another `--reader`; copy the file again from its source")

    console = stderr_console()
    keys = [slide.slide_id for slide in cohort.slides]
    with Bars(console=console, transient=True, disable=not console.is_terminal or len(keys) < 2) as bars:
        task = bars.add_task("examining slides", total=len(keys))
        hearing = Hearing(silent, lambda *_: bars.advance(task), died)
        works = [partial(examine_one, cohort, how)] * (settings.execution.workers or cores())
        found = run_in_processes(works, keys, hearing)
    return [found[key] for key in keys]


def _print_json(found: Sequence[Diagnosis]) -> None:
    import json

    counts = {state: sum(one.state == state for one in found) for state in _STATES}
    print(json.dumps({"slides": [one.as_json() for one in found], "counts": counts}, indent=2, ensure_ascii=False))


def _one_slide(one: Diagnosis) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["slide", one.slide_id],
        ["state", one.state],
        ["reader", one.reader],
        ["vendor", one.vendor],
        ["size", _size(one.size_px)],
        ["scanned part", one.bounds and f"{one.bounds.w} x {one.bounds.h} at {one.bounds.x0}, {one.bounds.y0}"],
        ["objective", one.objective and f"{one.objective:g}x"],
        ["um/px", _mpp(one)],
        ["stated by", one.mpp and one.mpp.source],
    ]
    for level in one.levels:
        x, y = level.downsample
        down = f"{x:.6g}" if x == y else f"{x:.6g} x {y:.6g}"
        rows.append([f"level {level.index}", f"{_size(level.size_px)}, downsample {down}"])
    rows.append(["other pictures", ", ".join(one.associated)])
    rows.append(["tiles read", one.tiles_read])
    rows.append(["fingerprint", one.fingerprint])
    rows += map(list, _remarks(one))
    return [row for row in rows if row[1] not in (None, "")]


def _print_many(found: Sequence[Diagnosis]) -> None:
    from pathpipe.cli.tables import print_table

    columns = ["slide", "state", "reader", "vendor", "size", "levels", "um/px", "stated by", "other pictures"]
    rows = [
        [
            one.slide_id,
            one.state,
            one.reader,
            one.vendor,
            _size(one.size_px),
            len(one.levels) or "",
            _mpp(one),
            one.mpp and one.mpp.source,
            ", ".join(one.associated),
        ]
        for one in found
    ]
    print_table(columns, rows)
    remarks = [[one.slide_id, kind, text] for one in found for kind, text in _remarks(one)]
    if remarks:
        print()
        print_table(["slide", "remark", "what"], remarks)
    states = [one.state for one in found]
    counted = " · ".join(f"{states.count(state)} {state}" for state in _STATES if state in states)
    stderr_console().print(f"doctor: {counted}", highlight=False)


def _remarks(one: Diagnosis) -> list[tuple[str, str]]:
    """What deserves a look, one line each."""
    remarks: list[tuple[str, str]] = []
    said: set[str] = set()
    for damage in one.damage:
        if damage.reason not in said:
            said.add(damage.reason)
            remarks.append((one.state, damage.reason + (f" (hint: {damage.hint})" if damage.hint else "")))
    if one.mpp_problem:
        remarks.append(("resolution", one.mpp_problem))
    if one.may_identify:
        remarks.append(("privacy", f"holds {' and '.join(one.may_identify)}: may show a name or number of the patient"))
    if one.duplicate_of:
        same = "a file of the same DICOM series as" if one.series else "same content as"
        remarks.append(("duplicate", f"{same} {one.duplicate_of}"))
    return remarks


def _size(size_px: tuple[int, int] | None) -> str:
    return f"{size_px[0]} x {size_px[1]}" if size_px else ""


def _mpp(one: Diagnosis) -> str:
    if one.mpp is None:
        return ""
    x, y = one.mpp.x, one.mpp.y
    return f"{x:.6g}" if x == y else f"{x:.6g} x {y:.6g}"
