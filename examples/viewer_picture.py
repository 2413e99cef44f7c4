"""The picture of the viewer in docs/images: the shipped model's samples in a real browser, without a screen.

    pip install playwright && apt-get install chromium
    python examples/viewer_picture.py docs/images/viewer.png

Every browser draws text a little differently; apart from that, the same machine makes the same picture.
"""

import pathlib
import sys
import tempfile
import time

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import dfm_jax
from dfm_jax.commands.view import of_data_set
from dfm_jax.viewer import objects
from dfm_jax.viewer.app import Viewer
from dfm_jax.viewer.server import free_port

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox --enable-unsafe-swiftshader --use-angle=swiftshader --disable-quic --disable-sync --no-first-run"
)
SIZE = {"width": 1080, "height": 640}
SAMPLES, SIDEWAYS = 3, 135.0  # degrees from the context camera


def main(path: str) -> None:
    sampler = dfm_jax.load("toy", num_samples=SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        sources, port = of_data_set(sampler.config), free_port("localhost", 8400)
        viewer = Viewer(sampler, sources, pathlib.Path(folder), "localhost", port, fit_gaussians=False)
        wait_for(lambda: len(viewer.session.samples) == SAMPLES and not viewer.jobs.busy)
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS.split())
            page = chromium.new_page(viewport=SIZE)
            page.goto(f"http://localhost:{viewer.port}")
            look(page, viewer)
            page.screenshot(path=path)
        viewer.close()
    Image.open(path).convert("RGB").save(path, optimize=True)
    print(f"{path}: {pathlib.Path(path).stat().st_size / 1000:.0f} kB")


def look(page: Page, viewer: Viewer) -> None:
    """Turns the scene so that its hidden side is seen, and waits for the true rendering."""
    page.get_by_text("the true rendering").wait_for(timeout=300_000)
    (client,) = viewer.server.get_clients().values()
    browser = viewer.browser(client)
    browser.choose(viewer.session.samples[1].label)
    _, centre, place = objects.overview(viewer.session.source, SIDEWAYS)
    with client.atomic():
        client.camera.position, client.camera.look_at = place, centre
    time.sleep(2)
    page.get_by_text("the true rendering").wait_for(timeout=300_000)
    for button in page.locator(".mantine-Notification-closeButton").all():
        button.click()
    time.sleep(2)


def wait_for(true: callable) -> None:
    while not true():
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
