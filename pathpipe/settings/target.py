"""What is to be predicted, as typed: `subtype`, `grade:ordinal`, `os_months/os_event:survival`, several with commas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from pathpipe.errors import SettingsError
from pathpipe.registry import suggest

Kind = Literal["classification", "multilabel", "ordinal", "regression", "survival", "cox"]
KINDS: tuple[str, ...] = get_args(Kind)
_TIMED = ("survival", "cox")
_GRAMMAR = "a target is COLUMN or COLUMN:KIND; survival is TIME/EVENT:survival, or TIME/!CENSORED:survival"


@dataclass(frozen=True)
class TargetSpec:
    """One target of a cohort.

    Attributes:
        columns: Columns of the cohort table: one; the labels of `multilabel`; time and event of `survival` and `cox`.
        kind: What the values are.
        censoring: Whether the second column of a survival target says that a patient was censored, not that the event
            was seen.
    """

    columns: tuple[str, ...]
    kind: Kind
    censoring: bool = False

    @property
    def timed(self) -> bool:
        """Whether it is a time to an event."""
        return self.kind in _TIMED

    @property
    def name(self) -> str:
        """The target as people are shown it: its columns."""
        return "/".join(self.columns)

    def __str__(self) -> str:
        """The target as typed, the default kind left out."""
        columns = (self.columns[0], "!" + self.columns[1]) if self.censoring else self.columns
        return "/".join(columns) + ("" if self.kind == "classification" else f":{self.kind}")


def parse_target(text: str) -> tuple[TargetSpec, ...]:
    """Read the setting `split.target`.

    Raises:
        SettingsError: It isn't written as one, or a column stands in it twice.
    """
    targets = tuple(_parse(part.strip(), text) for part in text.split(","))
    columns = [column for target in targets for column in target.columns]
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise SettingsError(f"column `{twice}` stands twice in target `{text}`", where="split.target")
    return targets


def _parse(part: str, whole: str) -> TargetSpec:
    name, colon, kind = part.rpartition(":")
    if not colon:
        name, kind = part, "classification"
    if kind not in KINDS:
        hint = suggest(kind, list(KINDS))
        raise SettingsError(f"`{kind}` is no kind of target", where=f"split.target `{whole}`", hint=hint)
    columns = tuple(name.split("/")) if kind in (*_TIMED, "multilabel") else (name,)
    censoring = kind in _TIMED and len(columns) == 2 and columns[1].startswith("!")
    if censoring:
        columns = (columns[0], columns[1].removeprefix("!"))
    wrong = kind in _TIMED and len(columns) != 2
    if wrong or not all(column.strip() == column and column for column in columns):
        raise SettingsError(f"`{part}` is no {kind} target", where=f"split.target `{whole}`", hint=_GRAMMAR)
    return TargetSpec(columns, cast("Kind", kind), censoring)
