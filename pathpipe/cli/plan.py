"""`pathpipe plan`: what a cohort will become, how long it will take, what is in the way; before any work is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathpipe.cli.options import with_settings
from pathpipe.cli.session import (
    ConfigOption,
    OutOption,
    PrintConfigOption,
    QuietOption,
    Request,
    SourceArgument,
    resolve,
    stderr_console,
)

if TYPE_CHECKING:
    from pathpipe.execution.planning import CohortPlan

COLUMNS = ("slide", "um/px", "source", "reader", "level", "read px", "resize", "error", "tiles", "extract", "disk")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("plan")(plan)


@with_settings("tile", "tissue", "slide", "extract", "execution:workers,device,tiles_per_batch,read_threads")
def plan(  # noqa: PLR0913 - typer makes an option of each parameter
    source: SourceArgument = None,
    out: OutOption = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Read and encode a few tiles to tell how long it will take")
    ] = True,
    gpu_rate: Annotated[
        float | None, typer.Option("--gpu-rate", min=0.001, help="Tiles/s one GPU encodes, instead of measuring here")
    ] = None,
    gpu_count: Annotated[int, typer.Option("--gpus", min=1, help="GPUs of that rate that share the cohort")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON (docs/formats.md)")] = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Also write one row a slide to this file")] = None,
    config: ConfigOption = None,
    print_config: PrintConfigOption = False,
    quiet: QuietOption = False,
    *,
    given: dict[str, dict[str, Any]],
) -> None:
    """Say what `tile` and `extract` would do to every slide, without doing it.

    Per slide: resolution and what says so, level, read size, resize, error, number of tiles (exact), expected time and
    disk. Nothing is read but a thumbnail and, unless `--no-probe`, a few tiles; nothing is written. Slides that would
    fail, and those that would spoil the cohort, are named with their reason, and the exit code is 2.
    """
    import json

    from pathpipe.cli.progress import Display
    from pathpipe.cohort import Cohort
    from pathpipe.encoders.catalogue import encoder_record
    from pathpipe.errors import ExitCode, SettingsError
    from pathpipe.execution.planning import plan_cohort
    from pathpipe.run import Run

    if gpu_count > 1 and gpu_rate is None:
        raise SettingsError("says how many GPUs share the work, but not how fast they are", "--gpus", "add --gpu-rate")
    folder, cohort_source, settings = resolve(Request(source, out, config, print_config, quiet), given)
    if cohort_source is None and folder is None:
        raise SettingsError("nothing to plan", hint="give a cohort table, a folder of slides, one slide, or a run")
    cohort = Cohort.read(cohort_source) if cohort_source is not None else Run.open(folder or Path()).cohort
    encoder_record(settings.extract.encoder, settings.extract.weights)
    console = stderr_console()
    with Display(console, quiet or not console.is_terminal) as display:
        planned = plan_cohort(cohort, settings, display, probed=probe, gpu_rate=gpu_rate, gpu_count=gpu_count)
    if csv_file is not None:
        _write_csv(csv_file, planned)
    if as_json:
        print(json.dumps(planned.to_dict(), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        _print_slides(planned)
    _print_conflicts(planned)
    if not quiet:
        console.print(totals_line(planned), highlight=False, soft_wrap=True)
    if planned.conflicts:
        raise typer.Exit(ExitCode.BAD_REQUEST)


def _print_slides(planned: CohortPlan) -> None:
    from pathpipe.cli.tables import print_table

    rows = []
    for plan in planned.slides:
        row = planned.row(plan)
        level = (
            None if row["level"] is None else f"{row['level']}" + (f" 1/{row['shrink']}" if row["shrink"] > 1 else "")
        )
        error = None if row["mpp_error_percent"] is None else f"{row['mpp_error_percent']:.2f}%"
        rows.append(
            [
                row["slide_id"],
                _pair(row["mpp"], ".4g"),
                row["mpp_source"],
                row["reader"],
                level,
                _pair(row["read_px"], "d"),
                _pair(row["resize"], ".4g"),
                error,
                row["tiles"],
                _duration(row["extract_s"]),
                None if row["disk_bytes"] is None else _size(row["disk_bytes"]),
            ]
        )
    print_table(COLUMNS, rows)


def _print_conflicts(planned: CohortPlan) -> None:
    console = stderr_console()
    for conflict in planned.conflicts:
        hint = f" (hint: {conflict.hint})" if conflict.hint else ""
        line = f"conflict: {conflict.slide_id}: {conflict.kind}: {conflict.reason}{hint}"
        console.print(line, markup=False, highlight=False, soft_wrap=True, style="yellow")


def totals_line(planned: CohortPlan) -> str:
    """One line: slides, tiles, hours, disk."""
    totals = planned.totals()
    hours = totals["extract_hours"]
    parts = [
        f"{totals['slides']:,} slides",
        f"{totals['tiles']:,} tiles",
        f"tile {_duration(totals['tile_hours'] * 3600)}",
        f"extract {_duration(hours * 3600)}" if hours is not None else f"extract unknown ({planned.rates.encode_note})",
        _size(totals["disk_gb"] * 1e9),
    ]
    if totals["slides_in_conflict"]:
        parts.append(f"{totals['slides_in_conflict']:,} in conflict")
    return " · ".join(parts)


def _write_csv(path: Path, planned: CohortPlan) -> None:
    import csv
    import io

    from pathpipe.execution.planning import SLIDE_KEYS
    from pathpipe.publish import publish_text

    reasons: dict[str, list[str]] = {}
    for conflict in planned.conflicts:
        reasons.setdefault(conflict.slide_id, []).append(f"{conflict.kind}: {conflict.reason}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*SLIDE_KEYS, "conflict"])
    for plan in planned.slides:
        cells = [_flat(value) for value in planned.row(plan).values()]
        writer.writerow([*cells, "; ".join(reasons.get(plan.slide_id, []))])
    publish_text(path, text.getvalue())


def _flat(value: Any) -> Any:
    """A cell for a list: numbers apart by spaces, sizes as WxH, sentences apart by semicolons."""
    if not isinstance(value, list):
        return value
    if value and isinstance(value[0], str):
        return "; ".join(value)
    return " ".join("x".join(map(str, item)) if isinstance(item, list) else str(item) for item in value)


def _pair(values: list[float] | None, form: str) -> str | None:
    """Both axes, or one where they are equal."""
    if values is None:
        return None
    x, y = (format(value, form) for value in values)
    return x if x == y else f"{x} x {y}"


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
