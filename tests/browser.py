"""Drive a headless Chromium over its debugging pipe: open pages at a size, in light, dark or print, with or without script."""

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-features=NetworkTimeServiceQuerying",
    "--remote-debugging-pipe",
)


class Browser:
    """A running browser. Speaks the Chrome DevTools Protocol: JSON messages, each ended by a zero byte."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest = read, write, b""
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command. Events that come before it are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        os.write(self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 20)
            assert data, "the browser ended"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


class Tab:
    """A page opened in a browser, with what it wrote to the console and what it asked for."""

    def __init__(
        self, browser: Browser, uri: str, width: int = 1280, height: int = 900, *, script: bool = True
    ) -> None:
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self._browser, self._target = browser, target
        self._session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height)
        self.send("Emulation.setScriptExecutionDisabled", value=not script)
        self.send("Page.navigate", url=uri)
        while not self.run(f"location.href === {json.dumps(uri)} && document.readyState === 'complete'"):
            time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.send("Target.closeTarget", targetId=self._target)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command to this tab."""
        return self._browser.send(method, self._session, **parameters)

    def resize(self, width: int, height: int = 900) -> None:
        """Make the window so many CSS pixels wide and high."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)

    def show(self, scheme: str) -> None:
        """Show the page `light`, `dark`, or as it is printed (`print`)."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if scheme == "dark" else "light"}]
        self.send("Emulation.setEmulatedMedia", media="print" if scheme == "print" else "screen", features=features)

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, which may be a promise."""
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def complaints(self) -> list[str]:
        """Return the messages on the console, errors of scripts, and requests that the page's policy blocked."""
        self.run("0")  # what has happened so far is reported before this
        own = [event for event in self._browser.events if event.get("sessionId") == self._session]
        texts: dict[str, Callable[[dict[str, Any]], str]] = {
            "Log.entryAdded": _entry,
            "Runtime.consoleAPICalled": json.dumps,
            "Runtime.exceptionThrown": json.dumps,
        }
        return [texts[event["method"]](event["params"]) for event in own if event["method"] in texts]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for, without those of its own data."""
        events = [event for event in self._browser.events if event.get("sessionId") == self._session]
        addresses = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in addresses if not address.startswith("data:")]

    def screenshot(self, place: Path) -> None:
        """Write the whole page as PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
        data = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        place.write_bytes(base64.b64decode(data))

    def pdf(self) -> bytes:
        """Return the page printed on A4."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True}
        return base64.b64decode(self.send("Page.printToPDF", **paper)["data"])


def _entry(parameters: dict[str, Any]) -> str:
    return str(parameters["entry"]["text"])


@contextmanager
def started(folder: Path) -> Iterator[Browser]:
    """Run a browser with its profile in a folder."""
    to_browser, ours = os.pipe()
    ours_read, from_browser = os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (to_browser, from_browser)]  # not 3 or 4 themselves

    def give_pipes() -> None:
        os.dup2(ends[0], 3)  # where the browser reads
        os.dup2(ends[1], 4)  # where it writes

    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}"]
    process = subprocess.Popen(command, preexec_fn=give_pipes, close_fds=False, stderr=subprocess.DEVNULL)
    for end in (to_browser, from_browser, *ends):
        os.close(end)
    try:
        browser = Browser(ours_read, ours)
        yield browser
        browser.send("Browser.close")
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(ours)
        os.close(ours_read)
