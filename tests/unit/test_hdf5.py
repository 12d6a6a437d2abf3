"""New HDF5 files: a full disk is an error like another, and the process lives on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pathpipe.hdf5 import OLD, new_hdf5


@pytest.mark.parametrize("versions", [("v110", "v110"), OLD])
def test_holds_what_is_put_in(tmp_path: Path, versions: tuple[str, str]) -> None:
    values = np.arange(6000, dtype=np.float16).reshape(1000, 6)
    with new_hdf5(tmp_path / "a.h5", versions) as file:
        file.create_dataset("features", data=values).attrs["name"] = "S1"
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["features"][:], values) and file["features"].attrs["name"] == "S1"


def test_errors_of_the_filler_pass(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), new_hdf5(tmp_path / "a.h5"):
        raise ValueError("mine")


_FILL = """
import resource, sys
from pathlib import Path
import numpy as np
from pathpipe.hdf5 import new_hdf5
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    with new_hdf5(Path(sys.argv[1])) as file:
        file.create_dataset("features", data=np.ones((500, 100), np.float16))
        file.create_dataset("coords", data=np.ones((500, 2)))
        file.attrs["about"] = "x" * 2000
except OSError as error:
    print("refused", error.errno)
else:
    print("written")
"""


@pytest.mark.parametrize("room", [100, 5_000, 60_000, 100_100, 105_000])
def test_no_room_at_any_point_ends_in_an_error_and_not_in_a_crash(tmp_path: Path, room: int) -> None:
    """A limit on a file's size fails a write as a full disk does, wherever HDF5 happens to be."""
    ended = subprocess.run(
        [sys.executable, "-c", _FILL, str(tmp_path / "a.h5"), str(room)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout.split()[:1], ended.stderr) == (0, ["refused"], "")
