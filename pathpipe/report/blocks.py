"""What a page is made of: sections of tables, plots, pictures and sentences; plain values, nothing drawn yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

Tone = Literal["", "soft", "good", "warn", "bad"]


@dataclass(frozen=True)
class Cell:
    """A text with more to it.

    Attributes:
        tone: How it is coloured; never the only thing that says so.
        hint: A second line, smaller.
        wide: Whether its lines may break.
    """

    text: str
    tone: Tone = ""
    hint: str = ""
    wide: bool = False


Value = str | int | float | Cell | None


@dataclass(frozen=True)
class Table:
    """Rows under names; readers may sort and filter them.

    Attributes:
        name: Its id on the page.
        rows: A cell is a text, a whole number, a number with `digits` decimals, or nothing.
        note: Sentences under it.
        summary: Whether the last row sums up the others and stays last.
    """

    kind: ClassVar[str] = "table"
    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    digits: int = 3
    note: tuple[str, ...] = ()
    summary: bool = False

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers and gaps only, so that it is set flush right."""
        values = [row[column] for row in (self.rows[:-1] if self.summary else self.rows)]
        return any(isinstance(value, int | float) for value in values) and all(
            value is None or isinstance(value, int | float) for value in values
        )


@dataclass(frozen=True)
class Plot:
    """A drawing.

    Attributes:
        svg: Made by this package from numbers and escaped names: it goes into the page as it is.
        width: `whole` takes a row of its own, `double` the room of two.
    """

    caption: str
    svg: str
    width: Literal["single", "double", "whole"] = "single"


@dataclass(frozen=True)
class Plots:
    """Drawings side by side."""

    kind: ClassVar[str] = "plots"
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class Picture:
    """A JPEG file with what a reader who can't see it must know."""

    jpeg: bytes
    alt: str
    caption: str
    tone: Tone = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, small ones or, where they are `wide`, two in a row."""

    kind: ClassVar[str] = "gallery"
    pictures: tuple[Picture, ...]
    wide: bool = False


@dataclass(frozen=True)
class Words:
    """A sentence or several; `names` in backticks are set as code."""

    kind: ClassVar[str] = "words"
    text: str
    tone: Tone = "soft"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Folded:
    """Text as it is, shown when asked for."""

    kind: ClassVar[str] = "folded"
    title: str
    text: str


Block = Table | Plots | Gallery | Words | Heading | Folded


@dataclass(frozen=True)
class Section:
    """Blocks under a heading.

    Attributes:
        name: Its id on the page.
        short: What the page's list of sections calls it.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]
    short: str = ""


@dataclass(frozen=True)
class Card:
    """One number that stands out, and what it is."""

    number: str
    words: str


@dataclass(frozen=True)
class Page:
    """All of it.

    Attributes:
        subtitle: A sentence under the title.
        notices: Sentences that stand above everything.
        made_by: Package -> version.
    """

    title: str
    subtitle: str
    notices: tuple[str, ...]
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]
    made_by: Mapping[str, str]
