"""A warm process: what is heavy is imported once; each command is a fork of it, and a process of its own all the same.

`python -m tests.integration.warm` reads requests, a line of JSON each, and answers each with the exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What commands import on their way; only time depends on this list.
_HEAVY = ("timm", "pandas", "matplotlib.pyplot", "skimage.morphology", "sklearn.linear_model", "h5py", "zarr", "jinja2")


class WarmProcess:
    """The process that is forked, as its parent sees it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
            cwd=Path(__file__).parents[2],
        )
        self._one_at_a_time = threading.Lock()

    def run(self, arguments: Sequence[str], environment: Mapping[str, str], out: Path, err: Path) -> int:
        """Exit code of `pathpipe ARGUMENTS`, run in this process's folder; its output goes to two files."""
        asked = [list(arguments), dict(environment), os.getcwd(), str(out), str(err)]
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _serve() -> None:
    from pathpipe.cli.app import main
    from pathpipe.stages.chain import STAGES

    for name in _HEAVY:
        importlib.import_module(name)
    for name in STAGES.names():
        STAGES[name]
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(*asked[1:])
            main(asked[0])
            sys.exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(environment: dict[str, str], folder: str, out: str, err: str) -> Any:
    """What a process started with these would be."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.stdin.close()
    for number, path in ((0, os.devnull), (1, out), (2, err)):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)


if __name__ == "__main__":
    _serve()
