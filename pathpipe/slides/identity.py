"""Identity: which files make up a slide, and a fingerprint of their content that moving them doesn't change."""

from __future__ import annotations

from pathlib import Path

from pathpipe.fingerprint import fingerprint, sampled_digest


def slide_files(path: Path) -> list[Path]:
    """Every file of the slide, the one that is opened first.

    MRXS keeps its pixels in a folder of the same name. For DICOM only the file itself is taken: which of its
    neighbours belong to the series can't be told without parsing all of them, and a slide must not change its
    identity because another was put beside it.
    """
    if path.suffix.lower() == ".mrxs":
        return [path, *sorted(file for file in path.with_suffix("").glob("*") if file.is_file())]
    return [path]


def slide_fingerprint(path: Path) -> str:
    """Fingerprint of a slide's content: sizes and sampled blocks, in milliseconds.

    Raises:
        OSError: A file can't be read.
    """
    return fingerprint([sampled_digest(file) for file in slide_files(path)])
