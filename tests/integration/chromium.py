"""Headless Chromium for tests: the DevTools protocol over its pipe, which needs nothing but the standard library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
)
_DEADLINE_S = 60.0
_CODES = {"Escape": 27, "Enter": 13, "PageUp": 33, "PageDown": 34}  # the browser's own reactions go by these


def find_chromium() -> str | None:
    """The browser's path, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def _onto(theirs: list[int]) -> None:
    for number, one in enumerate(theirs, start=3):
        os.dup2(one, number)


class Chromium:
    """One page of a headless browser.

    Attributes:
        complaints: What the page's console said as an error, and exceptions nobody caught.
    """

    def __init__(self, binary: str, profile: Path, size: tuple[int, int] = (1400, 850)) -> None:
        self.complaints: list[str] = []
        self._buffer, self._number = b"", 0
        down_read, self._down = os.pipe()
        self._up, up_write = os.pipe()
        # the browser expects its pipe on 3 and 4, where any of these may lie by chance: out of the way first
        theirs = [fcntl.fcntl(one, fcntl.F_DUPFD, 20) for one in (down_read, up_write)]
        self._process = subprocess.Popen(
            [binary, *_FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=partial(_onto, theirs),
        )
        for one in (down_read, up_write, *theirs):
            os.close(one)
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(*size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(_DEADLINE_S)
        os.close(self._down)
        os.close(self._up)

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """One DevTools call and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._down, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._up], [], [], _DEADLINE_S)
            assert ready, "Chromium doesn't answer"
            read = os.read(self._up, 1 << 20)
            assert read, "Chromium has ended"
            self._buffer += read
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = dict(json.loads(text))
        self._listen(message.get("method"), message.get("params", {}))
        return message

    def _listen(self, method: str | None, given: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(given["exceptionDetails"].get("exception", {}).get("description")))
        elif method == "Runtime.consoleAPICalled" and given["type"] == "error":
            self.complaints.append(" ".join(str(one.get("value", "")) for one in given["args"]))
        elif method == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.complaints.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")

    def resize(self, width: int, height: int) -> None:
        """The size of the window, px."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, **features: str) -> None:
        """Media features, e.g. `prefers_color_scheme="dark"`."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=listed)

    def go(self, url: str) -> None:
        """Open a page and wait for its files."""
        self.call("Page.navigate", url=url)
        here = json.dumps(url.partition("?")[0])
        self.wait(f"location.href.startsWith({here}) && document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression of the page gives."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = 20) -> None:
        """Until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self.value(f"!!({expression})"):
            assert time.monotonic() < deadline, f"never true: {expression}\n{self.complaints}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """One key, as a person presses it."""
        more: dict[str, Any] = {"text": key} if len(key) == 1 else {"windowsVirtualKeyCode": _CODES[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """`mouseMoved`, `mousePressed`, `mouseReleased` or `mouseWheel` at a place of the window, px."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def picture(self) -> bytes:
        """What is seen, a PNG file."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
