"""pathpipe: whole-slide images in, an honestly evaluated slide-level model out.

The names a notebook needs; each is loaded when it is first used, so `import pathpipe` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

_NAMES = {
    "Cohort": "pathpipe.cohort",
    "Member": "pathpipe.explain.probing",
    "Predictions": "pathpipe.evaluation.predictions",
    "Run": "pathpipe.run",
    "explain_bag": "pathpipe.explain.scores",
    "load_checkpoint": "pathpipe.training.checkpoint",
    "load_encoder": "pathpipe.encoders.load",
    "open_slide": "pathpipe.slides.open",
    "read_features": "pathpipe.store.features",
    "read_tiles": "pathpipe.tiles.table",
    "read_tissue": "pathpipe.tissue.polygons",
    "resolve_mpp": "pathpipe.slides.resolution",
    "stream_tiles": "pathpipe.tiles.stream",
}
__all__ = [*_NAMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module `pathpipe` has no attribute `{name}`")


def __dir__() -> list[str]:
    return __all__
