"""A headless Chromium that opens the page of a server, for tests of what a user does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
PATIENCE_S = 60.0  # a busy machine is not a bug
BINARIES = ("chromium", "chromium-browser", "google-chrome")


def paths() -> tuple[str, str]:
    """Return the paths of Chromium and its driver; skip the test where one of them is missing."""
    pytest.importorskip("selenium", reason="the package selenium is not installed")
    browser = next(filter(None, map(shutil.which, BINARIES)), None)
    driver = shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("Chromium or its driver is not installed (Debian: chromium, chromium-driver)")
    return browser, driver


class Browser:
    """A browser, with waits in place of sleeps. `driver` is Selenium's."""

    def __init__(self, driver: Any, downloads: Path):
        self.driver, self.downloads = driver, downloads

    def open(self, address: str) -> None:
        """Open the page, and wait until it knows what it has kept and which models there are."""
        self.driver.get(address)
        self.until(lambda: self.js("return document.body?.dataset.ready"))

    def js(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        """Return the first visible element, and wait for it."""
        return self.until(lambda: next((each for each in self.all(selector) if each.is_displayed()), None))

    def click(self, selector: str) -> None:
        self.one(selector).click()

    def press(self, *keys: str) -> None:
        """Press keys in whatever has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def text(self, selector: str) -> str:
        """Return the text of the first element, visible or not; "" if there is none."""
        return self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def choose(self, *files: Path) -> None:
        """Choose recordings."""
        self.all("#files")[0].send_keys("\n".join(map(str, files)))

    def until(self, found: Callable[[], T | None]) -> T:
        """Return the first result that counts as true."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        stale = [StaleElementReferenceException]
        return WebDriverWait(self.driver, PATIENCE_S, 0.02, stale).until(lambda _: found())

    def transcribed(self, count: int = 1) -> None:
        """Wait until this number of recordings is transcribed."""
        self.until(lambda: len(self.all('.entry[data-state="done"]')) == count)

    def downloaded(self, name: str) -> str:
        """Return the content of a download, once it is complete."""
        path = self.downloads / name
        # Chromium reserves the name with an empty file, which the whole file replaces in the end.
        self.until(lambda: path.exists() and path.stat().st_size)
        return path.read_text(encoding="utf-8")

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the page in CSS pixels, and the colours that the system prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def errors(self) -> list[str]:
        """Return what the console says is wrong since the last call, such as a breach of the page's policy."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@contextmanager
def browsing(folder: Path, *arguments: str) -> Iterator[Browser]:
    """Run a browser with an empty profile until the end of the context; `folder` is for its files."""
    browser, driver = paths()
    from selenium import webdriver

    options, downloads = webdriver.ChromeOptions(), folder / "downloads"
    downloads.mkdir()
    options.binary_location = browser
    for argument in (
        "--headless=new", "--autoplay-policy=no-user-gesture-required", "--mute-audio", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync",
        *(["--no-sandbox"] if os.geteuid() == 0 else []), *arguments,
    ):  # fmt: skip
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.unhandled_prompt_behavior = "accept"
    made = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        made.set_window_size(1280, 900)
        yield Browser(made, downloads)
    finally:
        made.quit()
