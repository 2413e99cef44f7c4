"""Debian's chromium, started by playwright, for tests of pages; without either they are skipped."""

import importlib.util
import pathlib

import pytest

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox --enable-unsafe-swiftshader --use-angle=swiftshader --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
PATIENCE = 90.0  # seconds for what takes none; compilations are told apart

needs_chromium = pytest.mark.skipif(
    not importlib.util.find_spec("playwright") or not pathlib.Path(CHROMIUM).exists(),
    reason="without playwright and Debian's chromium, pages are not tried in a browser",
)


@pytest.fixture(scope="module")
def chromium():
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS.split())
        yield browser
        browser.close()
