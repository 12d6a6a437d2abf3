"""The server: one run, this machine, whoever holds the key; it answers GET and HEAD and writes nothing.

What keeps others out:
 - it binds to 127.0.0.1, so no other machine reaches it;
 - every address starts with a random key, so no other user of this machine gets in;
 - requests whose Host isn't this machine are refused: a name that an attacker points at 127.0.0.1 (DNS rebinding) is
   no way in;
 - no answer allows another site's pages to read or embed it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote_to_bytes

from pathpipe.errors import SettingsError
from pathpipe.run import Run
from pathpipe.view.routes import NOTHING, Answer, Routes, open_run

HOST, PORT = "127.0.0.1", 8765
_HOSTS = ("127.0.0.1", "localhost")
_IDLE_S = 60
_LONGEST = 8192
_TEXT = "text/plain; charset=utf-8"
_OSD_STYLE = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"  # the one rule OpenSeadragon 6.1.1 adds to a page
_SAFETY = {
    "Content-Security-Policy": f"default-src 'none'; script-src 'self'; style-src 'self' {_OSD_STYLE}; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ViewServer(ThreadingHTTPServer):
    """A thread a connection; ends with the process.

    Args:
        port: 0 for any that is free.

    Raises:
        SettingsError: The port is taken, or the run can't be shown.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, run: Run, port: int = PORT) -> None:
        self.routes: Routes = open_run(run)
        self.key = secrets.token_urlsafe(16)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            hint = "is another viewer running? `--port 0` takes any port that is free"
            raise SettingsError(f"can't be used: {error.strerror}", where=f"port {port}", hint=hint) from None

    @property
    def url(self) -> str:
        """The page's address, with the key."""
        return f"http://{HOST}:{self.server_address[1]}/{self.key}/"

    def server_close(self) -> None:
        """Stop listening and let go of the slides."""
        super().server_close()
        self.routes.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say so when a request failed in a way nobody foresaw; a browser that went away is no failure."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "pathpipe", ""
    timeout = _IDLE_S

    def do_GET(self) -> None:
        """Answer with a body."""
        self._send(self._answer(), body=True)

    def do_HEAD(self) -> None:
        """Answer without one."""
        self._send(self._answer(), body=False)

    def _refuse(self) -> None:
        self.close_connection = True  # what it sent is left unread
        self._send(Answer(405, _TEXT, b"read-only: GET and HEAD\n"), body=True)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _answer(self) -> Answer:
        if not self._host_is_here():
            return Answer(403, _TEXT, b"only for this machine\n")
        if len(self.path) > _LONGEST or not self.path.startswith("/"):
            return NOTHING
        path = self.path.partition("?")[0].partition("#")[0]
        try:
            # decoded after it is cut: an encoded slash stays inside its name, where it is only compared
            key, *segments = [unquote_to_bytes(part).decode() for part in path[1:].split("/")]
        except UnicodeDecodeError:
            return NOTHING
        if not hmac.compare_digest(key.encode(), self.server.key.encode()):
            return Answer(403, _TEXT, b"open the address that `pathpipe view` printed\n")
        return self.server.routes.answer(segments)

    def _host_is_here(self) -> bool:
        """Whether the browser believes it talks to this machine; the port may be that of an SSH tunnel."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1:
            return False
        name, _, port = hosts[0].partition(":")
        return name.lower() in _HOSTS and (not port or (port.isascii() and port.isdigit()))

    def _send(self, answer: Answer, body: bool) -> None:
        tag = f'"{hashlib.blake2b(answer.body, digest_size=12).hexdigest()}"'
        known = answer.status == 200 and tag in (self.headers.get("If-None-Match") or "")
        self.send_response(304 if known else answer.status)
        for name, value in _SAFETY.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", answer.cache if answer.status == 200 else "no-store")
        self.send_header("ETag", tag)
        if answer.status == 405:
            self.send_header("Allow", "GET, HEAD")
        if self.close_connection:
            self.send_header("Connection", "close")
        if not known:
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if body and not known:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: a page asks for hundreds of tiles."""
