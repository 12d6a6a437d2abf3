"""Row files: whatever is appended, killed, torn or overwritten, what comes back was committed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.errors import StoreError
from pathpipe.store.rows import RowFile, RowLayout

DTYPES = st.sampled_from(["float16", "float32"])
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def _rows(count: int, layout: RowLayout, seed: int = 0) -> np.ndarray:
    """Any bits at all, NaN included: rows are bytes to the file."""
    raw = np.random.default_rng(seed).integers(0, 256, count * layout.row_bytes).astype(np.uint8)
    return raw.view(layout.dtype).reshape(count, layout.dim)


def _all(rows: RowFile) -> np.ndarray:
    return np.concatenate([np.empty((0, rows.shape[1]), rows.dtype), *rows.blocks()])


def _append(path: Path, layout: RowLayout, whole: np.ndarray, sizes: list[int]) -> None:
    file = RowFile.resume(path, layout)
    for size in sizes:
        file.append(whole[file.rows : file.rows + size])
    file.close()


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.integers(1, 7), DTYPES, st.floats(0, 1))
def test_killed_and_resumed_equals_never_killed(
    sizes: list[int], more: list[int], dim: int, dtype: str, cut: float
) -> None:
    layout = RowLayout(dim, dtype, "fp")
    whole = _rows(sum(sizes) + sum(more), layout)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.rows"
        _append(path, layout, whole, sizes)
        content = path.read_bytes()
        path.write_bytes(content[: round(len(content) * cut)])
        file = RowFile.resume(path, layout)
        committed = file.rows
        assert committed in np.cumsum([0, *sizes]).tolist(), "only whole blocks count"
        assert cut < 1 or committed == sum(sizes)
        while file.rows < len(whole):
            file.append(whole[file.rows : file.rows + 4])
        assert _all(file).tobytes() == whole.tobytes()
        file.close()
        again = RowFile.resume(path, layout)
        assert again.rows == len(whole) and _all(again).tobytes() == whole.tobytes()
        again.close()


@settings(max_examples=60, deadline=None)
@given(SIZES, st.binary(min_size=1, max_size=90))
def test_what_follows_the_last_block_is_cut_off(sizes: list[int], tail: bytes) -> None:
    layout = RowLayout(3, "float16", "fp")
    whole = _rows(sum(sizes), layout)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.rows"
        _append(path, layout, whole, sizes)
        content = path.read_bytes()
        path.write_bytes(content + tail)
        file = RowFile.resume(path, layout)
        assert file.rows == len(whole) and _all(file).tobytes() == whole.tobytes()
        file.close()
        assert path.read_bytes() == content


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_byte_overwritten_leaves_an_intact_prefix(tmp_path: Path, mask: int) -> None:
    layout, sizes = RowLayout(2, "float16", "fp"), [3, 1, 2]
    whole = _rows(6, layout)
    path = tmp_path / "a.rows"
    _append(path, layout, whole, sizes)
    content = path.read_bytes()
    header = len(layout.header())
    ends = np.cumsum([header, *(20 + size * layout.row_bytes for size in sizes)])
    for at in range(len(content)):
        broken = bytearray(content)
        broken[at] ^= mask
        path.write_bytes(broken)
        file = RowFile.resume(path, layout)
        intact = int(np.searchsorted(ends, at, side="right")) - 1  # whole blocks before that byte
        assert file.rows == (sum(sizes[:intact]) if at >= header else 0), at
        assert _all(file).tobytes() == whole[: file.rows].tobytes()
        file.close()


def test_a_block_of_another_file_does_not_fit_in(tmp_path: Path) -> None:
    """Frames carry their first row, so a block copied to another place is not taken for the one that belongs there."""
    layout = RowLayout(2, "float16", "fp")
    path = tmp_path / "a.rows"
    _append(path, layout, _rows(6, layout), [3, 3])
    content, header, block = path.read_bytes(), len(layout.header()), 20 + 3 * layout.row_bytes
    path.write_bytes(content[:header] + content[header + block :] + content[header : header + block])
    file = RowFile.resume(path, layout)
    assert file.rows == 0
    file.close()


def test_damage_behind_an_open_file_is_noticed(tmp_path: Path) -> None:
    layout = RowLayout(2, "float16", "fp")
    path = tmp_path / "a.rows"
    _append(path, layout, _rows(6, layout), [3, 3])
    file = RowFile.resume(path, layout)
    with open(path, "r+b") as other:
        other.seek(-1, 2)
        last = other.read(1)[0]
        other.seek(-1, 2)
        other.write(bytes([last ^ 1]))
    with pytest.raises(StoreError, match="row 3 of the half-made file is damaged"):
        _all(file)
    file.close()
