"""Fixtures that several test folders share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# Two test workers of two threads each would wait for one another on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell ignores Ctrl-C for what it starts in the background, and every process below would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides and tables that lives outside the repository."""
    folder = Path(os.environ.get("PATHPIPE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real test data is absent: {folder} (set PATHPIPE_TEST_DATA)")
    return folder
