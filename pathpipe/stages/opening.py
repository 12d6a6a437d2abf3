"""Opening: a slide of the cohort where it is, in an object store, or as a copy on a local disk, as the settings say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pathpipe.cohort import SlideRow
from pathpipe.errors import SlideError
from pathpipe.settings import RunSettings
from pathpipe.slides.open import NeedsDiskError, open_slide
from pathpipe.slides.remote import Blocks
from pathpipe.slides.slide import Slide
from pathpipe.slides.staging import staged


@contextmanager
def opened(row: SlideRow, settings: RunSettings, tile_by_tile: bool = False) -> Iterator[Slide]:
    """A slide for as long as the block lasts.

    With a staging folder it is copied there first if it will be read tile by tile, or if its reader needs a file and it
    lies behind a URL. What needs only a thumbnail reads that where the slide is.

    Raises:
        SlideError: It can't be opened or copied.
        SettingsError: There is no such reader, or the staging folder can't be written.
    """
    how, reader = settings.execution, settings.slide.reader
    folder = Path(how.stage_dir) if how.stage_dir else None
    blocks = Blocks(how.remote_block_kb << 10, how.remote_cache_mb << 20)
    if not (tile_by_tile and folder):
        try:
            slide = open_slide(row.path, reader, blocks)
        except NeedsDiskError:
            if folder is None:
                raise
        else:
            with slide:
                yield slide
            return
    with staged(row.path, folder, int(how.stage_gb * 1e9)) as path:
        try:
            slide = open_slide(path, reader, blocks)
        except NeedsDiskError as error:  # the copy wasn't made
            raise SlideError(error.what, error.where, "raise --stage-gb above its size; or download it") from None
        with slide:
            yield slide
