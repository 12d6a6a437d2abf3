"""One slide of a cohort as the report and the contact sheet show it."""

from __future__ import annotations

from dataclasses import dataclass

_ORDER = ("failed", "stale", "empty")


@dataclass(frozen=True)
class SlideEntry:
    """What became of a slide.

    Attributes:
        state: `done`, `empty`, `failed` or `stale`.
        stage: Where it ended, for all but `done`.
        overlay: JPEG of tissue and tiles.
        flags: Sentences about its tissue that a person should read.
        doubt: How much its tissue deserves a look, 0 for not at all.
    """

    slide_id: str
    patient_id: str
    label: str
    state: str
    stage: str = ""
    reason: str = ""
    hint: str = ""
    tiles: int | None = None
    tissue_mm2: float | None = None
    mpp: str = ""
    overlay: bytes | None = None
    flags: tuple[str, ...] = ()
    doubt: float = 0.0

    @property
    def suspicion(self) -> tuple[int, float, float]:
        """Sorts what to look at first: failed, stale, empty; then the most doubtful; then the least tissue."""
        order = _ORDER.index(self.state) if self.state in _ORDER else len(_ORDER)
        return order, -self.doubt, self.tissue_mm2 or 0.0
