"""Headless Chromium that shows pages at the width of a phone or a desktop, in dark mode, or in print, and measures
them.

It is controlled over two pipes by the DevTools protocol. One browser serves a whole test session, and a page takes some
milliseconds. Tests use the fixture ``browser`` of ``conftest.py``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

__all__ = ["Browser", "open_browser"]


class Browser:
    """One tab of the browser.

    Args:
        write: File descriptor that the browser reads messages from.
        read: File descriptor that it writes answers and events to.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._rest = b""
        self._count = 0
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._frame = self._call("Page.getFrameTree")["frameTree"]["frame"]["id"]

    def show(self, page: str, width: int = 1280, *, is_dark: bool = False, is_print: bool = False) -> None:
        """Show a page.

        Args:
            page: Content of the page, HTML.
            width: Width of the window, CSS pixels; below 600, a phone is emulated.
            is_dark: Whether the reader prefers dark colours.
            is_print: Whether to use the styles of print.
        """
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._call("Emulation.setEmulatedMedia", media="print" if is_print else "screen", features=[scheme])
        self._call("Page.setDocumentContent", frameId=self._frame, html=page)

    def run(self, script: str) -> Any:
        """Evaluate a JavaScript expression on the page and return its value; an exception fails the test."""
        done = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def picture(self) -> bytes:
        """Capture the whole page as a PNG file."""
        found = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def paper(self) -> bytes:
        """Print the page to a PDF file, A4, with backgrounds."""
        found = self._call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        return base64.b64decode(found["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        session = {} if self._session is None else {"sessionId": self._session}
        message = {"id": self._count, "method": method, "params": parameters, **session}
        rest = json.dumps(message).encode() + b"\0"
        while rest:
            rest = rest[os.write(self._write, rest) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._read, 1 << 20)
            assert piece, "Chromium ended"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@contextlib.contextmanager
def open_browser(program: str) -> Iterator[Browser]:
    """Start Chromium, and stop it afterwards.

    Args:
        program: Path of the program, from :func:`support.tools.require_tool`.
    """
    from_us, to_browser = os.pipe()
    from_browser, to_us = os.pipe()
    options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, contextlib.ExitStack() as stack:
        # Chromium reads commands from descriptor 3 and answers on 4; a shell puts the pipes there.
        shell = f'exec 3<&{from_us} 4>&{to_us}; exec "$0" {options} --user-data-dir="$1" about:blank'
        process = subprocess.Popen(
            ["bash", "-c", shell, program, profile],
            pass_fds=(from_us, to_us),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        for ours in (to_browser, from_browser):
            stack.callback(os.close, ours)
        os.close(from_us)
        os.close(to_us)
        yield Browser(to_browser, from_browser)
