"""How long a person waits for help: `pathpipe --help` against `python -c pass`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def _seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Time both in turn."""
    help_s, bare_s = [], []
    for _ in range(7):
        help_s.append(_seconds("-m", "pathpipe", "--help"))
        bare_s.append(_seconds("-c", "pass"))
    print(f"pathpipe --help {statistics.median(help_s):.2f} s, python alone {statistics.median(bare_s):.2f} s")


if __name__ == "__main__":
    main()
