"""Row files with two owners at once: the one that slept through its lease spoils nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pathpipe.errors import LeaseLostError
from pathpipe.lease import Lease
from pathpipe.publish import partial_path
from pathpipe.store.rows import RowFile, RowLayout

LAYOUT = RowLayout(3, "float32", "fp")


def _block(count: int, value: float) -> np.ndarray:
    return np.full((count, 3), value, np.float32)


def _first_column(rows: RowFile) -> list[float]:
    return [float(value) for block in rows.blocks() for value in block[:, 0]]


def test_two_owners_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    late = RowFile.resume(path, LAYOUT)
    late.append(_block(2, 1))
    now = RowFile.resume(path, LAYOUT)
    assert now.rows == 2
    late.append(_block(3, 2))
    now.append(_block(1, 3))
    late.append(_block(1, 4))
    assert _first_column(now) == [1, 1, 3] and _first_column(late) == [1, 1, 2, 2, 2, 4]
    late.discard(path)
    late.close()
    now.append(_block(1, 5))
    now.close()
    third = RowFile.resume(path, LAYOUT)
    assert _first_column(third) == [1, 1, 3, 5], "the file of the one that has it stays, whatever the other does"
    third.discard(path)
    third.discard(path)
    third.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_takes_the_name_while_another_is_looked_at_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next owner resumes twice: between the rename and the look of the last one's `discard`."""
    path, newer = tmp_path / "a.rows", []
    late = RowFile.resume(path, LAYOUT)
    now = RowFile.resume(path, LAYOUT)
    now.append(_block(1, 1))

    def aside(target: Path) -> Path:
        monkeypatch.undo()
        now.close()
        newer.append(RowFile.resume(path, LAYOUT))
        return partial_path(target)

    monkeypatch.setattr("pathpipe.store.rows.partial_path", aside)
    late.discard(path)
    late.close()
    assert newer[0].rows == 1
    newer[0].append(_block(1, 2))
    newer[0].close()
    again = RowFile.resume(path, LAYOUT)
    assert _first_column(again) == [1, 2] and len(list(tmp_path.iterdir())) == 1
    again.close()


def test_who_has_lost_the_slide_does_not_take_its_rows(tmp_path: Path) -> None:
    path, lease = tmp_path / "a.rows", Lease.acquire(tmp_path / "leases" / "S1")
    assert lease is not None
    rows = RowFile.resume(path, LAYOUT, lease)
    rows.append(_block(2, 1))
    before = path.read_bytes()
    lease.path.write_text('{"token": "of somebody else"}')
    with pytest.raises(LeaseLostError):
        RowFile.resume(path, LAYOUT, lease)
    assert path.read_bytes() == before and sorted(one.name for one in tmp_path.iterdir()) == ["a.rows", "leases"]
    lease.release()
    rows.close()
