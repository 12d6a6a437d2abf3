"""Presence: whether a path leads to something that can be a slide, before anything tries to read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pathpipe.errors import SlideError

COVER_SUFFIX = ".mrxs"  # a picture by its first bytes, but only the cover of a folder of pixels
_FORBIDDEN = "may not be read"
_ALLOW = "check the permissions of file and folder"


def refuse_what_is_no_slide(path: Path) -> None:
    """Refuse what is missing, forbidden, empty, or neither a file nor a zarr folder.

    Raises:
        SlideError: One sentence that says which.
    """
    where = str(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        what = "is a link to a file that isn't there" if path.is_symlink() else "there is no such file"
        raise SlideError(what, where=where, hint="correct `path` in the cohort table") from None
    except PermissionError:
        raise SlideError(_FORBIDDEN, where=where, hint=_ALLOW) from None
    except OSError as error:
        raise SlideError(f"can't be reached: {error.strerror}", where=where, hint="check links and network") from None
    if stat.S_ISDIR(status.st_mode):
        _refuse_other_folders(path)
        return
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        raise SlideError("is not a file with content but a pipe, socket or device", where=where)
    if status.st_size == 0:
        raise SlideError("is empty (0 bytes)", where=where, hint="copy the file again from its source")
    if path.suffix.lower() == COVER_SUFFIX and not path.with_suffix("").is_dir():
        raise SlideError(
            f"has no pixels: the folder `{path.stem}` that belongs beside it is missing",
            where=where,
            hint="copy the folder of the same name too",
        )
    if not os.access(path, os.R_OK):
        raise SlideError(_FORBIDDEN, where=where, hint=_ALLOW)


def _refuse_other_folders(path: Path) -> None:
    if not os.access(path, os.R_OK | os.X_OK):
        raise SlideError(_FORBIDDEN, where=str(path), hint=_ALLOW)
    if not any((path / name).exists() for name in (".zattrs", "zarr.json")):
        raise SlideError(
            "is a folder, not a slide",
            where=str(path),
            hint="give the slide file inside it; of folders, only OME-Zarr images are slides",
        )
