"""Routes: what the page asks for, by slide id and model name, to bytes. No path of a file is ever part of a request.

| request | answer |
|---|---|
| `` | the page |
| `static/NAME` | a file of the page |
| `run` | every slide in a word |
| `slide/ID` | all about one slide |
| `thumb/ID` | a small picture of it |
| `tile/ID/LEVEL/COLUMN_ROW` | a tile of its DeepZoom pyramid |
| `layer/ID/tissue`, `tiles`, `truth` | outlines |
| `layer/ID/heat/MODEL/SCORE` | scores of a trained model |
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np

from pathpipe.cohort import SlideRow
from pathpipe.errors import PathpipeError, SettingsError
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge
from pathpipe.slides.slide import Pixels
from pathpipe.tissue.thumbnail import read_thumbnail
from pathpipe.view import layers
from pathpipe.view.facts import SCORES, heat_facts, run_facts, slide_facts
from pathpipe.view.shelf import Pictures, Shelf, version_of

THUMB_PX = 160
_QUALITY = 90
_NUMBER = r"(?:0|[1-9]\d{0,8})"
_PLACE = re.compile(rf"({_NUMBER})_({_NUMBER})", re.ASCII)
_LEVEL = re.compile(_NUMBER, re.ASCII)
_KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".txt": "text/plain"}
KEPT = "private, max-age=86400"  # the page asks for pictures by the time of change of their slide
ASKED = "no-cache"


@dataclass(frozen=True)
class Answer:
    """What goes back to the browser."""

    status: int
    kind: str
    body: bytes
    cache: str = ASKED


NOTHING = Answer(404, "text/plain; charset=utf-8", b"there is no such thing in this run\n")


class Routes:
    """Answers for one run. Safe from several threads.

    Raises:
        SettingsError: The run's settings or its cohort can't be read.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings = _settings(run)
        self.shelf = Shelf(self.settings.slide.reader)
        self.pictures = Pictures()
        self._rows = {row.slide_id: row for row in run.cohort.slides}

    def answer(self, segments: Sequence[str]) -> Answer:
        """The answer to a request, given as its decoded path segments.

        What is wrong with a slide or a file is an answer too (422, with `what` and `hint`): the page shows it.
        """
        try:
            return self._found(list(segments)) or NOTHING
        except PathpipeError as error:
            return _json({"what": error.reason, "hint": error.hint or ""}, 422)
        except OSError as error:  # a disk or a share that went away
            return _json({"what": f"can't be read: {error.strerror or error}", "hint": "is its disk there?"}, 422)

    def close(self) -> None:
        """Let go of the slides."""
        self.shelf.close()

    def _found(self, segments: list[str]) -> Answer | None:
        match segments:
            case [""]:
                return self._static.get("index.html")
            case ["static", name]:
                return self._static.get(name)
            case ["run"]:
                return _json(run_facts(self.run))
            case [what, slide_id, *rest] if slide_id in self._rows:
                return self._of_slide(what, self._rows[slide_id], rest)
        return None

    def _of_slide(self, what: str, row: SlideRow, rest: list[str]) -> Answer | None:
        match what, rest:
            case "slide", []:
                return self._slide(row)
            case "thumb", []:
                return self._picture(row, "thumb", lambda: self._thumb(row))
            case "tile", [level, place]:
                return self._tile(row, level, place)
            case "layer", ["heat", model, score]:
                return self._heat(row, model, score)
            case "layer", [name]:
                return self._layer(row, name)
        return None

    @cached_property
    def _static(self) -> dict[str, Answer]:
        """The page's files by name: only what is listed here can be asked for."""
        found = {}
        for file in files("pathpipe.view").joinpath("static").iterdir():
            kind = _KINDS.get(file.name[file.name.rfind(".") :])
            if kind is not None:
                found[file.name] = Answer(200, f"{kind}; charset=utf-8", file.read_bytes())
        return found

    def _slide(self, row: SlideRow) -> Answer:
        with self.shelf.borrow(row.path) as pyramid:
            facts = slide_facts(self.run, row, pyramid.slide, self.settings)
        return _json({**facts, "version": "-".join(map(str, version_of(row.path)))})

    def _tile(self, row: SlideRow, level: str, place: str) -> Answer | None:
        found = _PLACE.fullmatch(place)
        if found is None or not _LEVEL.fullmatch(level):
            return None
        number, column, line = int(level), int(found[1]), int(found[2])

        def draw() -> Pixels | None:
            with self.shelf.borrow(row.path) as pyramid:
                return pyramid.tile(number, column, line)

        return self._picture(row, (number, column, line), draw)

    def _thumb(self, row: SlideRow) -> Pixels:
        with self.shelf.borrow(row.path) as pyramid:
            return read_thumbnail(pyramid.slide, max(pyramid.slide.size0) / THUMB_PX).pixels

    def _picture(self, row: SlideRow, what: Any, draw: Any) -> Answer | None:
        key = (row.slide_id, version_of(row.path), what)
        jpeg = self.pictures.get(key, lambda: _jpeg(draw()))
        return None if jpeg is None else Answer(200, "image/jpeg", jpeg, KEPT)

    def _layer(self, row: SlideRow, name: str) -> Answer | None:
        tissue, tiles = self.run.tissue(row.slide_id), self.run.tiles(row.slide_id)
        if name == "tissue" and tissue.exists():
            return _json(layers.tissue_layer(tissue))
        if name == "tiles" and tiles.exists():
            return _json(layers.tiles_layer(tiles))
        if name == "truth" and row.truth is not None:
            return _json(layers.truth_layer(row.truth))
        return None

    def _heat(self, row: SlideRow, model: str, score: str) -> Answer | None:
        known = heat_facts(self.run, row.slide_id)  # names from the run's folder: what was asked for is but compared
        if score not in known.get(model, {}).get("scores", []):
            return None
        scores = self.run.heatmap(model, row.slide_id) / SCORES
        palette = self.settings.heatmap.colours
        return _json(layers.heat_layer(scores, score, self.run.tiles(row.slide_id), palette))


def open_run(run: Run) -> Routes:
    """The routes of a run that can be shown.

    Raises:
        SettingsError: Its cohort is empty.
    """
    if not len(run.cohort):
        raise SettingsError("the run has no slide to show", where=str(run.folder))
    return Routes(run)


def _settings(run: Run) -> RunSettings:
    """What of the run's settings matters here; what another version wrote of training is no reason to show nothing."""
    saved = run.saved_settings()
    known: dict[str, Any] = {name: saved[name] for name in ("slide", "heatmap") if name in saved}
    return merge(RunSettings, [(str(run.settings_yaml), known)])[0]


def _json(value: Any, status: int = 200) -> Answer:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Answer(status, "application/json; charset=utf-8", text.encode())


def _jpeg(pixels: Pixels | None) -> bytes | None:
    import simplejpeg

    if pixels is None:
        return None
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), _QUALITY, "RGB", "444"))
