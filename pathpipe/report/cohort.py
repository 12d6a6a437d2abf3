"""The cohort on a page: who is in it, what became of every slide, and which slides want a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pathpipe.report.blocks import Block, Cell, Gallery, Picture, Section, Table, Tone, Value, Words
from pathpipe.report.entry import SlideEntry
from pathpipe.report.words import DASH, counted, number

SIGNS = {"done": "✔ done", "empty": "∅ empty", "failed": "✘ failed", "stale": "≠ stale"}
_TONES: dict[str, Tone] = {"failed": "bad", "stale": "warn", "empty": "warn"}
_MOST_VALUES = 12  # of a column that is shown value by value
_MOST_GROUPS = 6
By = Mapping[str, str]  # patient_id -> text


def state_cell(state: str) -> Cell:
    """A state with its sign: colour is never all that says it."""
    return Cell(SIGNS.get(state, state), _TONES.get(state, ""))


def cohort_section(
    slides: Sequence[SlideEntry], columns: Mapping[str, By], groups: By, target: str, short: str = "Cohort"
) -> Section:
    """Characteristics by class, and a table of all slides.

    Args:
        columns: Column of the cohort -> patient_id -> text, "" where unknown.
        groups: patient_id -> class; empty where the target has no classes.
    """
    blocks: tuple[Block, ...] = (
        characteristics(slides, columns, groups),
        slide_table(slides, target),
    )
    return Section("cohort", "Cohort and slides", blocks, short)


def characteristics(slides: Sequence[SlideEntry], columns: Mapping[str, By], groups: By) -> Table:
    """One row a property, one column a class, patients counted once."""
    patients = list(dict.fromkeys(slide.patient_id for slide in slides))
    names = sorted({groups[patient] for patient in patients if groups.get(patient)})
    if len(names) > _MOST_GROUPS:
        names = []
    members = [[patient for patient in patients if groups.get(patient) == name] for name in names]
    sets = [patients, *members]
    rows: list[tuple[Value, ...]] = [("patients", *(len(one) for one in sets))]
    of = [{*one} for one in sets]
    rows.append(("slides", *(sum(slide.patient_id in one for slide in slides) for one in of)))
    rows.append(("slides with a result", *(_done(slides, one) for one in of)))
    rows.append(("tiles a slide", *(_spread([s.tiles for s in slides if s.patient_id in one]) for one in of)))
    areas = ("tissue a slide, mm²", *(_spread([s.tissue_mm2 for s in slides if s.patient_id in one], 2) for one in of))
    rows.append(areas)
    for column, values in columns.items():
        rows += _column_rows(column, values, sets)
    note = "Numbers are medians with quartiles; shares are of the patients whose value is known."
    return Table("characteristics", ("property", "all", *(f"`{name}`" for name in names)), tuple(rows), note=(note,))


def _done(slides: Sequence[SlideEntry], patients: set[str]) -> int:
    return sum(slide.patient_id in patients and slide.state == "done" for slide in slides)


def _column_rows(column: str, values: By, sets: Sequence[Sequence[str]]) -> list[tuple[Value, ...]]:
    """A column of numbers is one row, of names a row a value."""
    known = sorted({text for patient in sets[0] if (text := values.get(patient, ""))})
    if not known:
        return []
    if len(known) > _MOST_VALUES // 2 and (numbers := _numbers(values, sets[0])):
        cells = [_spread([numbers.get(patient) for patient in one], 1) for one in sets]
        return [(f"{column}", *cells)]
    if len(known) > _MOST_VALUES:
        different = [len({values.get(patient, "") for patient in one} - {""}) for one in sets]
        return [(f"{column}", *(counted(count, "value") for count in different))]
    rows: list[tuple[Value, ...]] = []
    for text in known:
        rows.append((f"{column}: {text}", *(_share(values, text, one) for one in sets)))
    missing = [sum(not values.get(patient) for patient in one) for one in sets]
    return [*rows, (f"{column}: unknown", *(f"{count:,}" for count in missing))] if missing[0] else rows


def _numbers(values: By, patients: Sequence[str]) -> dict[str, float]:
    """patient_id -> number; empty where a text is none."""
    try:
        return {patient: float(text) for patient in patients if (text := values.get(patient, ""))}
    except ValueError:
        return {}


def _share(values: By, text: str, patients: Sequence[str]) -> str:
    known = [patient for patient in patients if values.get(patient)]
    count = sum(values[patient] == text for patient in known)
    return f"{count:,} ({100 * count / len(known):.0f}%)" if known else DASH


def _spread(values: Sequence[float | None], digits: int = 0) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return DASH
    low, middle, high = (number(float(one), digits) for one in np.quantile(known, [0.25, 0.5, 0.75]))
    return f"{middle} ({low} to {high})"


def slide_table(slides: Sequence[SlideEntry], target: str) -> Table:
    """Every slide with its numbers."""
    remarks = any(slide.flags for slide in slides)
    rows = tuple(
        (
            slide.slide_id,
            slide.patient_id,
            slide.label,
            state_cell(slide.state),
            slide.tiles,
            slide.tissue_mm2,
            slide.mpp,
            *([Cell("; ".join(slide.flags), wide=bool(slide.flags))] if remarks else []),
        )
        for slide in slides
    )
    names = (
        "slide",
        "patient",
        target,
        "state",
        "tiles",
        "tissue mm²",
        "um/px",
        *(["remarks on the tissue"] if remarks else []),
    )
    return Table("slides", names, rows, digits=2)


def sheet_section(slides: Sequence[SlideEntry], shown: Mapping[str, bytes], where: str) -> Section | None:
    """Pictures of tissue and tiles, those to look at first at the top; None where there is no picture.

    Args:
        shown: slide_id -> JPEG of those there is room for.
        where: Folder of the run that holds all of them.
    """
    ordered = [slide for slide in sorted(slides, key=lambda one: one.suspicion) if slide.slide_id in shown]
    if not ordered:
        return None
    pictures = tuple(
        Picture(shown[slide.slide_id], f"Tissue and tiles of slide {slide.slide_id}", _caption(slide), _tone(slide))
        for slide in ordered
    )
    text = "Those to look at first come first: trouble, then the most suspicious tissue. Green: tissue; orange: holes; "
    text += "blue: tiles; hatched: artefacts. Click to enlarge."
    if len(shown) < len(slides):
        text += f" Shown: {len(shown):,} of {counted(len(slides), 'slide')}; all pictures are in `{where}`."
    return Section("tissue", "Tissue and tiles", (Words(text), Gallery(pictures)))


def _tone(slide: SlideEntry) -> Tone:
    return _TONES.get(slide.state, "warn" if slide.flags else "")


def _caption(slide: SlideEntry) -> str:
    remarks = [slide.reason] if slide.reason else []
    remarks += [flag for flag in slide.flags if flag not in remarks]
    size = counted(slide.tiles, "tile") if slide.tiles is not None else "no tiles"
    more = f" (and {len(remarks) - 1} more)" if len(remarks) > 1 else ""
    return f"{slide.slide_id} · {size}" + (f" · {remarks[0]}{more}" if remarks else "")
