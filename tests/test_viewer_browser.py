"""The viewer in a real browser (Debian's chromium, by playwright), of the model that ships: one of each, in one go."""

import time

import numpy as np
import pytest
from PIL import Image

import dfm_jax
from dfm_jax.commands import view
from dfm_jax.exports.gaussians import Gaussians
from dfm_jax.viewer import server
from dfm_jax.viewer.app import Viewer
from dfm_jax.viewer.browser import Browser
from tests.browser import PATIENCE, chromium, needs_chromium

__all__ = ["chromium"]  # a fixture
pytestmark = needs_chromium
SIZE = {"width": 1000, "height": 500}  # narrower, viser hides its panel


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    """A running viewer, with one sample in two steps, whose programs are compiled."""
    folder = tmp_path_factory.mktemp("viewer")
    sampler = dfm_jax.load("toy", steps=2, num_samples=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sources = view.of_data_set(sampler.config)
    port = server.free_port("localhost", 8300)
    made = Viewer(sampler, sources, folder / "view", "localhost", port, fit_gaussians=False)
    wait_for(lambda: made.session.samples and not made.jobs.busy)
    yield made
    made.close()


def wait_for(true, seconds: float = PATIENCE):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def open_page(chromium, viewer):
    page = chromium.new_page(viewport=SIZE)
    page.goto(f"http://localhost:{viewer.port}")
    page.get_by_text("the true rendering").wait_for(timeout=1000 * PATIENCE)
    return page


def picture_of(page, tmp_path) -> np.ndarray:
    path = tmp_path / "page.png"
    page.screenshot(path=path)
    return np.asarray(Image.open(path).convert("RGB"), np.float32)[:, : SIZE["width"] // 3]


class Record:
    """The frames that came to a browser."""

    def __init__(self, monkeypatch):
        self.frames = []
        receive = Browser.receive

        def receive_and_note(browser, shown):
            receive(browser, shown)
            self.frames.append(shown)

        monkeypatch.setattr(Browser, "receive", receive_and_note)

    def num_shots(self) -> int:
        """Of how many that a browser wanted to see a frame came."""
        return len({id(shown.shot) for shown in self.frames})


def at_rest(viewer, client) -> None:
    """Waits until a browser's camera stands still: it glides on when the mouse is let go, for as many of its frames."""
    seen = [np.inf, viewer.browser(client).camera().camera_to_world]

    def stands() -> bool:
        time.sleep(0.3)
        seen.append(viewer.browser(client).camera().camera_to_world)
        return np.array_equal(seen[-1], seen[-2])

    wait_for(stands)


def turn(page, viewer, client, record: Record) -> None:
    """The mouse turns the camera, and frames come of what is seen on the way and in the end."""
    start = viewer.browser(client).camera().camera_to_world
    page.mouse.move(200, 250)
    page.mouse.down()
    for x in range(220, 420, 20):
        page.mouse.move(x, 260)
    page.mouse.up()
    wait_for(lambda: np.abs(viewer.browser(client).camera().camera_to_world - start).max() > 0.1)
    wait_for(lambda: record.frames[-1].final and record.num_shots() > 2)


def move_gaussians(viewer, client) -> None:
    """Gaussians are seen while the camera moves, and then the field again."""
    some = Gaussians(
        means=np.array([[0.0, 0.0, 4.0]]),
        scales=np.full((1, 3), 0.5),
        quaternions=np.array([[1.0, 0, 0, 0]]),
        opacities=np.ones(1),
        colours=np.array([[0.0, 1.0, 0.0]]),
    )
    viewer.session._know(viewer.session.samples[0], gaussians=some)
    motion = viewer.browser(client)._motion
    wait_for(lambda: motion.smooth)
    viewer.browser(client)._moved()
    assert motion._handle.visible
    wait_for(lambda: not motion._handle.visible)


def drop_connection(viewer, client, record: Record) -> None:
    """It comes back to the same samples and the same camera, and to frames, before anything told that it left."""
    viewer.server._client_disconnect_cb.clear()
    at_rest(viewer, client)
    before = viewer.browser(client)
    record.frames.clear()
    viewer.server._websock_server.disconnect_all_clients()
    wait_for(lambda: client.client_id not in viewer.server.get_clients() and viewer.server.get_clients())
    wait_for(lambda: record.frames and record.frames[-1].final)
    assert len(viewer.session.samples) == 2
    (again,) = viewer.server.get_clients().values()
    wait_for(lambda: again.client_id in viewer._browsers)
    moved = lambda: np.abs(viewer.browser(again).camera().camera_to_world - before.camera().camera_to_world).max()
    wait_for(lambda: moved() < 1e-3)


def test_the_viewer_in_a_browser(viewer, chromium, tmp_path, monkeypatch):
    monkeypatch.setattr("dfm_jax.viewer.controls.DEFAULT_FINEST", 128)
    record = Record(monkeypatch)
    page = open_page(chromium, viewer)
    first = picture_of(page, tmp_path)
    assert first.std() > 10  # something is seen
    (client,) = viewer.server.get_clients().values()
    turn(page, viewer, client, record)
    wait_for(lambda: np.abs(picture_of(page, tmp_path) - first).mean() > 3)
    move_gaussians(viewer, client)

    # Buttons: another sample, and a notification of a value that cannot be.
    page.get_by_text("Sample", exact=True).first.click()
    page.get_by_role("button", name="Draw another sample").click()
    wait_for(lambda: len(viewer.session.samples) == 2 and not viewer.jobs.busy)
    viewer.samples.guidance.value = 1e9
    page.get_by_role("button", name="Draw another sample").click()
    page.get_by_text("must be at least").wait_for(timeout=1000 * PATIENCE)
    viewer.samples.guidance.value = 1.0
    assert len(viewer.session.samples) == 2

    # Two browsers: each has a camera of its own, and what is shared is seen in both.
    other = open_page(chromium, viewer)
    assert len(viewer.server.get_clients()) == 2
    mine, its = (viewer.browser(c).camera().camera_to_world for c in viewer.server.get_clients().values())
    assert np.abs(mine - its).max() > 0.1
    other.close()
    wait_for(lambda: len(viewer._browsers) == 1)
    drop_connection(viewer, client, record)
    page.close()
