"""Servers on 127.0.0.1 for tests of slides and stores by URL: an S3 store that counts, and a web server with whims."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class Store:
    """A local S3 store."""

    endpoint: str
    client: Any

    def put(self, key: str, data: bytes | Path) -> str:
        """Store an object in the bucket `slides`; returns its URL."""
        body = data.read_bytes() if isinstance(data, Path) else data
        self.client.put_object(Bucket="slides", Key=key, Body=body)
        return f"s3://slides/{key}"

    def keys(self, prefix: str = "") -> list[str]:
        """Keys of the bucket below a prefix."""
        return list(self.ages(prefix))

    def ages(self, prefix: str = "") -> dict[str, Any]:
        """Key -> when it was written."""
        found = self.client.list_objects_v2(Bucket="slides", Prefix=prefix).get("Contents", [])
        return {one["Key"]: one["LastModified"] for one in found}


@contextmanager
def s3_store() -> Iterator[Store]:
    """A store with one bucket, `slides`, to which this process and those it starts have the credentials."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        client = boto3.client("s3")
        client.create_bucket(Bucket="slides")
        yield Store(names["AWS_ENDPOINT_URL"], client)
        client.close()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        server.stop()


@dataclass
class Web:
    """A web server over a folder.

    Attributes:
        ranges: Whether it gives parts of a file.
        status: What every request is answered with, if anything else than it asks for.
        kept_back: Bytes that every part is too short by.
        refused: Requests that are still answered with 503 before it behaves.
        dies_after: Requests for content after which it cuts every connection; None for never.
        requests: (method, path, range) of every request.
    """

    folder: Path
    url: str = ""
    ranges: bool = True
    status: int | None = None
    kept_back: int = 0
    refused: int = 0
    dies_after: int | None = None
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def fetched(self) -> list[tuple[str, str, str]]:
        """Requests for content."""
        return [one for one in self.requests if one[0] == "GET"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        web, asked = self.web, self.headers.get("Range", "")
        web.requests.append((self.command, self.path, asked))
        if web.dies_after is not None and len(web.fetched) > web.dies_after:
            self.close_connection = True
            return
        if web.status is not None:
            self._send(web.status, b"", with_body)
            return
        if web.refused and with_body:
            web.refused -= 1
            self._send(503, b"busy")
            return
        file = web.folder / unquote(self.path.partition("?")[0]).lstrip("/")
        if not file.is_file():
            self._send(404, b"none", with_body)
            return
        data, found = file.read_bytes(), RANGE.fullmatch(asked)
        if found and web.ranges:
            first, last = int(found[1]), min(int(found[2]), len(data) - 1)
            self._send(206, data[first : last + 1 - web.kept_back], with_body, f"bytes {first}-{last}/{len(data)}")
        else:
            self._send(200, data, with_body)

    def _send(self, status: int, data: bytes, with_body: bool = True, part: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hash(data) if part is None else part}"')
        if part is not None:
            self.send_header("Content-Range", part)
        self.end_headers()
        if with_body:
            try:
                self.wfile.write(data)
            except OSError:  # the client has heard enough
                self.close_connection = True


@contextmanager
def web_server(folder: Path) -> Iterator[Web]:
    """A web server that gives the files of a folder, or misbehaves as it is told."""
    web = Web(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": web}))
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
