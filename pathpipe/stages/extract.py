"""Stage `extract`: the features of one slide. The only file that joins tiles, encoder and store."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

import numpy as np

from pathpipe.encoders.encoder import Encoder
from pathpipe.encoders.load import encoder_identity, load_encoder
from pathpipe.errors import StoreError
from pathpipe.progress import Progress
from pathpipe.provenance import read_provenance
from pathpipe.run import Run
from pathpipe.settings import ExtractSettings, RunSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Slide
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.store.features import check_features, refuse_non_finite, write_features
from pathpipe.store.rows import RowFile
from pathpipe.tiles.grid import TileGrid
from pathpipe.tiles.stream import stream_tiles
from pathpipe.tiles.table import read_tiles


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The tiles, and the very weights and transform of the encoder."""
    made = read_provenance(run.tiles(key))
    if made is None:
        raise StoreError("there is no tile table", where=str(run.tiles(key)), hint="run `pathpipe tile` first")
    identity = encoder_identity(settings.extract.encoder, settings.extract.weights)
    return {**made.inputs, "tiles": made.fingerprint, "encoder": identity.fingerprint}
