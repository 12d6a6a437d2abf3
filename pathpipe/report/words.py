"""Numbers, intervals and names as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from pathpipe.evaluation.bootstrap import Interval

DASH = "–"
_OF_FOLD = re.compile(r"fold (\d+): (.*)", re.DOTALL)


def number(value: float | None, digits: int = 3) -> str:
    """A number for people; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.{digits}f}"


def interval_text(value: Interval | None) -> str:
    """`0.812 to 0.934`."""
    if value is None or not math.isfinite(value.low):
        return DASH
    return f"{value.low:.3f} to {value.high:.3f}"


def p_text(p: float) -> str:
    """`0.031`, `< 0.001`."""
    if not math.isfinite(p):
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def gathered(notes: Sequence[str]) -> list[str]:
    """Notes that say the same of several folds, once: `folds 0, 1: ...`."""
    found: dict[str, list[str]] = {}
    for note in notes:
        match = _OF_FOLD.fullmatch(note)
        found.setdefault(match[2] if match else note, []).extend([match[1]] if match else [])
    return [
        f"fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}: {text}" if folds else text
        for text, folds in found.items()
    ]


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 slide`, `1,000 slides`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """`12 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"
