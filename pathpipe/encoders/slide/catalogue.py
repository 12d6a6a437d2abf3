"""Slide encoders by name: built-in poolings, those of other packages, and published ones that wait for a plug-in."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from pathpipe.encoders.slide.slide_encoder import SlideCard, SlideEncoder
from pathpipe.errors import MissingError, SettingsError
from pathpipe.registry import Registry, suggest

SLIDE_ENCODERS = Registry(
    "slide-encoder",
    {
        "mean": "pathpipe.encoders.slide.pooling:MeanPooling",
        "max": "pathpipe.encoders.slide.pooling:MaxPooling",
        "mean-std": "pathpipe.encoders.slide.pooling:MeanStdPooling",
    },
)
_FILE = Path(__file__).with_name("catalogue.yaml")


@cache
def published() -> dict[str, SlideCard]:
    """The cards of published slide encoders."""
    entries = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {name: SlideCard(name=name, **entry) for name, entry in entries.items()}


def slide_encoder_names() -> list[str]:
    """All names: those that can be used, then those that wait for a plug-in."""
    usable = SLIDE_ENCODERS.names()
    return [*usable, *(name for name in published() if name not in usable)]


def slide_encoder_card(name: str) -> SlideCard:
    """The facts of a slide encoder. A published one's contract stands, whoever brings its code.

    Raises:
        SettingsError: There is no such slide encoder, or a plug-in offers something without a card.
    """
    if name in published():
        return published()[name]
    if name not in SLIDE_ENCODERS:
        raise SettingsError(f"there is no slide encoder `{name}`", hint=suggest(name, slide_encoder_names()))
    card: Any = getattr(SLIDE_ENCODERS[name], "card", None)
    if not isinstance(card, SlideCard):
        raise SettingsError(
            f"slide encoder `{name}` of package {SLIDE_ENCODERS.source(name)} has no card",
            hint="an entry point of group pathpipe.slide-encoders must name a class with `card: SlideCard`",
        )
    return card


@lru_cache(maxsize=1)
def load_slide_encoder(name: str, device: str) -> SlideEncoder:
    """A slide encoder, ready to embed; the last one stays in memory, slide after slide.

    Raises:
        SettingsError: There is no such slide encoder.
        MissingError: It is a published one, and no installed package brings its code.
    """
    card = slide_encoder_card(name)
    if name in SLIDE_ENCODERS:
        encoder: SlideEncoder = SLIDE_ENCODERS[name](device)
        return encoder
    gate = f"; accept its licence ({card.licence}) there" if card.gated else f" (licence: {card.licence})"
    raise MissingError(
        f"no installed package brings the slide encoder `{name}`",
        hint=f"its code: {card.code}; its weights: {card.weights}{gate}; wrap them in a package whose entry point "
        f"`{name}` of group pathpipe.slide-encoders is a class with `embed` (docs/plugins.md)",
    )
