"""The Ray cluster: joined where RAY_ADDRESS says, else started on this machine for the length of the command."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pathpipe.errors import MissingError, SettingsError
from pathpipe.execution.ray_room import Nodes

_ANSWER_S = 5.0  # Ray itself gives up after minutes
_STORE_BYTES = 80_000_000  # of the object store of a cluster of our own: receipts are all that passes through


def import_ray() -> Any:
    """The package.

    Raises:
        MissingError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingError("the package `ray` is not installed", hint='pip install "pathpipe[ray]"') from None
    return ray


def join() -> Any:
    """Ray, connected; a cluster that was started here ends with this process, another's is only left.

    Raises:
        MissingError: Ray is not installed, or the cluster doesn't take us.
        SettingsError: RAY_ADDRESS is of a kind that is not supported.
    """
    ray = import_ray()
    if ray.is_initialized():
        return ray
    address = os.environ.get("RAY_ADDRESS") or "local"
    own = {"object_store_memory": _STORE_BYTES, "include_dashboard": False} if address == "local" else {}
    _look_for(address)
    try:
        # Ray prints the last words of nodes among our output, and has no public switch for it.
        ray._private.worker._worker_logs_enabled = False
        with _signals_kept():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise MissingError(
            f"the Ray cluster can't be joined: {str(error).strip().splitlines()[0]}",
            where=f"RAY_ADDRESS={address}" if address != "local" else None,
            hint="Ray and Python must be of one version on all nodes, and the token of the cluster must be known here",
        ) from error
    return ray


def _look_for(address: str) -> None:
    """Say soon what Ray would say after minutes."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise SettingsError(
            "is not HOST:PORT of a cluster's head node",
            where=f"RAY_ADDRESS={address}",
            hint="run the command on a node of the cluster (`ray job submit` does), or unset RAY_ADDRESS",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except OSError as error:
        raise MissingError(
            f"no Ray cluster answers ({error.strerror or error})",
            where=f"RAY_ADDRESS={address}",
            hint="start it by `ray start --head --port=6379`, or unset RAY_ADDRESS to use this machine alone",
        ) from None


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray would end the process at SIGTERM, without a chance to give leases back."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # Ray sets none in another
            signal.signal(signal.SIGTERM, before)


def nodes(ray: Any) -> Nodes:
    """What each living node has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
