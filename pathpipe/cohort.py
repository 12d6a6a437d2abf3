"""Cohort: one row a slide, checked when it is read; a table, a folder of slides or a single slide."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pathpipe.dicom import SUFFIX, series_uid
from pathpipe.errors import CohortError
from pathpipe.places import SLIDE_SUFFIXES, followed, is_slide_folder, slides_below
from pathpipe.publish import publish_text
from pathpipe.registry import suggest
from pathpipe.remote import read_whole
from pathpipe.url import Place, Url, is_url, place, shown

OWN_COLUMNS = ("slide_id", "path", "patient_id", "site", "mpp", "truth")


@dataclass(frozen=True)
class SlideRow:
    """One slide of a cohort.

    Attributes:
        slide_id: Name of every file made from the slide; unique.
        path: The slide file, or its URL. It may be missing: that slide fails later, alone.
        patient_id: Whose slide it is; the unit of splitting and of inference.
        mpp: Resolution in um/px that overrides the file's own, or None.
        truth: GeoJSON of true regions in level-0 px, or None.
        labels: Every other column, as text.
    """

    slide_id: str
    path: Place
    patient_id: str
    site: str | None = None
    mpp: float | None = None
    truth: Path | None = None
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Cohort:
    """Slides in the order of the table.

    Raises:
        CohortError: A path isn't text in UTF-8: no table could hold it.
    """

    slides: tuple[SlideRow, ...]

    def __post_init__(self) -> None:
        for slide in self.slides:
            try:
                str(slide.path).encode()
            except UnicodeEncodeError:
                raise CohortError(
                    "the name of a file or folder isn't UTF-8",
                    where=str(slide.path).encode(errors="backslashreplace").decode(),
                    hint="rename it, or keep it out of the folder",
                ) from None

    @classmethod
    def read(cls, source: Place) -> Cohort:
        """Read a CSV or TSV table, every slide below a folder or a prefix of a bucket, or one slide.

        A table needs a column `path` (a URL, or relative to the table's folder); `slide_id` (default: the file's name),
        `patient_id` (default: the slide), `site`, `mpp`, `truth` and label columns are optional.

        Raises:
            CohortError: With the row and column where something is wrong.
            RemoteError: What lies behind a URL can't be read or listed.
        """
        if isinstance(source, Url):
            return cls(_from_url(source))
        if source.is_dir() and not is_slide_folder(source):
            return cls(_from_folder(source))
        if not source.exists():
            raise CohortError("there is no such cohort table, folder or slide", where=shown(source))
        if source.suffix.lower() in (".csv", ".tsv"):
            return cls(_from_table(source))
        return cls((SlideRow(source.stem, followed(source), source.stem, labels={}),))

    @cached_property
    def _by_id(self) -> dict[str, SlideRow]:
        return {slide.slide_id: slide for slide in self.slides}

    def __getitem__(self, slide_id: str) -> SlideRow:
        try:
            return self._by_id[slide_id]
        except KeyError:
            hint = suggest(slide_id, list(self._by_id))
            raise CohortError(f"the cohort has no slide `{slide_id}`", hint=hint) from None

    def __len__(self) -> int:
        return len(self.slides)

    @property
    def patients(self) -> dict[str, str]:
        """slide_id -> patient_id."""
        return {slide.slide_id: slide.patient_id for slide in self.slides}

    def values(self, column: str) -> dict[str, str]:
        """slide_id -> text of one column, `site` or any that isn't the table's own.

        Raises:
            CohortError: The column is missing.
        """
        if column == "site":
            return {slide.slide_id: slide.site or "" for slide in self.slides}
        self._refuse_unknown(column)
        return {slide.slide_id: (slide.labels or {})[column] for slide in self.slides}

    def _refuse_unknown(self, column: str) -> None:
        known = sorted({name for slide in self.slides for name in slide.labels or {}})
        if column not in known:
            hint = suggest(column, known) if known else "add a label column to the cohort table"
            raise CohortError(f"the cohort has no column `{column}`", hint=hint)

    def labels_by_patient(self, column: str) -> dict[str, str]:
        """patient_id -> label, patients without one left out.

        Raises:
            CohortError: The column is missing or empty, or a patient's slides disagree.
        """
        self._refuse_unknown(column)
        labels: dict[str, str] = {}
        for slide in self.slides:
            label = (slide.labels or {})[column]
            if label == "":
                continue
            if labels.setdefault(slide.patient_id, label) != label:
                raise CohortError(
                    f"patient {slide.patient_id} has both `{labels[slide.patient_id]}` and `{label}`",
                    where=f"column `{column}`",
                    hint="give all slides of a patient one label, or tell patients apart in `patient_id`",
                )
        if not labels:
            raise CohortError("no slide has a value", where=f"column `{column}`")
        return labels

    def write(self, path: Path) -> None:
        """Write the table as CSV with absolute paths, so that a run folder stands on its own."""
        rows = [
            {
                "slide_id": slide.slide_id,
                "path": str(slide.path),
                "patient_id": slide.patient_id,
                "site": slide.site or "",
                "mpp": "" if slide.mpp is None else repr(slide.mpp),
                "truth": str(slide.truth or ""),
                **(slide.labels or {}),
            }
            for slide in self.slides
        ]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        publish_text(path, text.getvalue())


def _from_url(source: Url) -> tuple[SlideRow, ...]:
    if source.suffix.lower() in (".csv", ".tsv"):
        return _from_table(source)
    if source.suffix.lower() in SLIDE_SUFFIXES:
        return (SlideRow(source.stem, source, source.stem, labels={}),)
    return _from_folder(source)


def _from_folder(source: Place) -> tuple[SlideRow, ...]:
    found = slides_below(source)
    stems = Counter(PurePosixPath(parts[-1]).stem for _, parts in found)
    rows = []
    for path, parts in found:
        # Two folders may hold files of one name: only those get their folder (and suffix) in the id.
        stem = PurePosixPath(parts[-1]).stem
        slide_id = stem if stems[stem] == 1 else "--".join(parts)
        rows.append(SlideRow(slide_id, path, slide_id, labels={}))
    return tuple(rows)


def _from_table(source: Place) -> tuple[SlideRow, ...]:
    columns, records = _read_table(source)
    if "path" not in columns:
        raise CohortError(
            f"has no column `path` (columns: {', '.join(columns)})",
            where=shown(source),
            hint="add a column `path` with the slide files, relative to the table's folder",
        )
    if not records:
        raise CohortError("has no rows", where=shown(source))
    label_columns = [name for name in columns if name not in OWN_COLUMNS]
    rows = {number: _row(record, number, source, label_columns) for number, record in records.items()}
    _refuse_twins(rows, source)
    return tuple(rows.values())


def _read_table(source: Place) -> tuple[list[str], dict[int, dict[str, str]]]:
    """Column names, and the record of each row that isn't blank, by its number as a spreadsheet counts.

    Not by pandas, which takes longer to import than a table to read.
    """
    separator = "\t" if source.suffix.lower() == ".tsv" else ","
    try:
        with _opened(source) as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file, delimiter=separator, strict=True)]
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise CohortError(f"can't be read as a table: {error}", where=shown(source)) from None
    if not any(map(any, lines)):
        raise CohortError("can't be read as a table: it is empty", where=shown(source))
    lines = _without_blank_columns(lines)
    (_, columns), *rows = [(number, line) for number, line in enumerate(lines, start=1) if any(line)]
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise CohortError(f"has two columns `{twice[0]}`", where=shown(source))
    for number, row in rows:
        if len(row) > len(columns):
            raise CohortError(
                f"has {len(row)} values for {len(columns)} columns",
                where=f"{shown(source)}, row {number}",
                hint="put values that hold the separator into quotes",
            )
    return columns, {
        number: dict(zip(columns, row + [""] * (len(columns) - len(row)), strict=True)) for number, row in rows
    }


def _without_blank_columns(lines: list[list[str]]) -> list[list[str]]:
    """Spreadsheets write separators after the last column, too: cells without a name and a value anywhere."""
    width = max(index + 1 for line in lines for index, cell in enumerate(line) if cell)
    return [line[:width] for line in lines]


def _opened(source: Place) -> io.TextIOBase:
    raw = read_whole(source) if isinstance(source, Url) else source.read_bytes()
    return io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8-sig", newline="")


def _row(record: Mapping[str, str], number: int, source: Place, label_columns: list[str]) -> SlideRow:
    where = f"{shown(source)}, row {number}"
    if not record["path"]:
        raise CohortError("the path is empty", where=where)
    path = _absolute(record["path"], source)
    slide_id = record.get("slide_id") or path.stem
    if "/" in slide_id or "\\" in slide_id or slide_id.startswith("."):
        raise CohortError(f"slide_id `{slide_id}` can't be a file name", where=where, hint="leave out / and \\")
    truth = _absolute(record["truth"], source) if record.get("truth") else None
    if isinstance(truth, Url):
        raise CohortError("`truth` has to be a file on a disk", where=where, hint="download the regions")
    return SlideRow(
        slide_id=slide_id,
        path=path,
        patient_id=record.get("patient_id") or slide_id,
        site=record.get("site") or None,
        mpp=_number(record.get("mpp", ""), f"{where}, column `mpp`"),
        truth=truth,
        labels={name: record[name] for name in label_columns},
    )


def _absolute(text: str, source: Place) -> Place:
    if is_url(text):
        return place(text)
    if isinstance(source, Url):
        return source.parent.joined(text)
    # Not resolve(): a slide reached through a link keeps the name its owner gave it.
    return Path(os.path.abspath(source.parent / Path(text).expanduser()))


def _number(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise CohortError(f"`{text}` is not a number of um/px", where=where) from None


def _refuse_twins(rows: Mapping[int, SlideRow], source: Place) -> None:
    for what, values in (
        ("slide_id", {number: row.slide_id for number, row in rows.items()}),
        ("path", {number: str(row.path) for number, row in rows.items()}),
    ):
        first: dict[str, int] = {}
        for number, value in values.items():
            if value in first:
                raise CohortError(
                    f"rows {first[value]} and {number} have the same {what}: {value}",
                    where=shown(source),
                    hint="every slide stands once" if what == "path" else "give each slide its own `slide_id`",
                )
            first[value] = number
    series: dict[tuple[Path, str], int] = {}
    for number, row in rows.items():
        if isinstance(row.path, Url):
            continue
        uid = series_uid(row.path) if row.path.suffix.lower() == SUFFIX else None
        first_row = number if uid is None else series.setdefault((row.path.parent, uid), number)
        if first_row != number:
            raise CohortError(
                f"rows {first_row} and {number} are files of one DICOM series, that is, of one slide",
                where=shown(source),
                hint="name one file of each series: the others are found beside it",
            )
