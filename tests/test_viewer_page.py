"""Pages in 3D: what they hold, and one of them in a real browser."""

import re

import numpy as np
import pytest
from PIL import Image

from dfm_jax.exports import formats
from dfm_jax.exports.initial_gaussians import initial_gaussians
from dfm_jax.exports.renderings import SceneViews
from dfm_jax.viewer import page
from tests.browser import PATIENCE, chromium, needs_chromium
from tests.made_up_scene import Balls

__all__ = ["chromium"]  # a fixture
# Of the client's worker, which sorts gaussians.
COUNT_ANSWERS = """
window.answers = 0;
window.Worker = class extends Worker {
  constructor(...given) {
    super(...given);
    this.addEventListener('message', () => window.answers++);
  }
};
"""


@pytest.fixture(scope="module")
def samples():
    """Views of two scenes behind one picture, of which the second is darker."""
    views = []
    views += [SceneViews(Balls(shade=shade), 12, 24, views) for shade in (0.0, -0.3)]
    return views


@pytest.fixture
def no_fitting(monkeypatch):
    monkeypatch.setattr(page, "fit_to", lambda views, *args: initial_gaussians(views, 150))
    monkeypatch.setattr(page, "psnr", lambda *args: 20.0)


def test_page_holds_all_samples_and_needs_no_network(samples, no_fitting, tmp_path):
    told = formats.export(samples[1], tmp_path / "scene.html")
    assert told["samples"] == 2 and told["psnr_to_field"] == 20
    html = (tmp_path / "scene.html").read_text()
    assert html.count("<button data-sample") == 2
    assert len(html) < 1.5e6
    # Nothing is loaded: the addresses that are left are namespaces, links of error messages and licences.
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=.?https?:", html)


def test_uncertainty_is_grey_where_samples_agree_and_glows_where_they_differ(samples, no_fitting):
    alike, apart = page.fit_samples(samples[:1])[0], page.fit_samples(samples)[0]
    np.testing.assert_allclose(alike.uncertainty, alike.uncertainty[:, :1].repeat(3, axis=1), atol=1e-5)
    colourful = np.ptp(apart.uncertainty, axis=1)
    assert np.median(colourful) > 0.1


def test_page_coordinates_are_upright_around_what_is_looked_at(samples):
    scene = samples[0].scene
    to_page = page.page_from_scene(scene)
    place = to_page @ scene.context_camera.camera_to_world[:, 3]
    assert np.linalg.norm(place[:3]) == pytest.approx(page.DISTANCE)
    up = to_page[:3, :3] @ [0, -1, 0]  # the made-up scene's y points down
    # The page's numbers are float32, and rounded.
    assert up / np.linalg.norm(up) == pytest.approx([0, 0, 1], abs=1e-3)
    assert np.linalg.det(to_page[:3, :3]) > 0
    path = page.default_path(scene)
    assert np.ptp(path.camera_to_world[:, 0, 3]) > 4  # all around


@needs_chromium
def test_scenes_are_drawn_switched_and_played_in_a_browser(samples, no_fitting, chromium, tmp_path):
    path = tmp_path / "scene.html"
    path.write_text(page.scene_page(samples, page.fit_samples(samples)))
    opened = chromium.new_page(viewport={"width": 600, "height": 400})
    asked = []
    opened.add_init_script(COUNT_ANSWERS)
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(path.as_uri())
    opened.wait_for_selector("body[data-ready=true]", timeout=1000 * PATIENCE)
    opened.click("#dfm-photograph")

    def reds() -> np.ndarray:
        """Of what is drawn in the middle, once it stays the same."""
        before = None
        for _ in range(60):
            opened.wait_for_timeout(500)
            opened.screenshot(path=tmp_path / "page.png")
            now = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"), np.float32)[50:330, 200:400]
            if before is not None and np.abs(now - before).max() < 3:
                return now
            before = now
        raise AssertionError("the picture does not come to rest")

    first = reds()
    assert (first[..., 0] > 150).mean() > 0.05  # the red ball
    opened.click('[data-sample="2"]')
    second = reds()
    assert second[..., 0].max() < first[..., 0].max() - 30  # is darker in the other sample
    opened.click("[data-kind=uncertainty]")
    assert np.abs(reds() - second).max() > 30
    opened.click("#dfm-play")
    assert opened.text_content("#dfm-play") == "Stop"
    opened.wait_for_timeout(1500)
    opened.click("#dfm-play")
    assert np.abs(reds() - second).max() > 30
    # Also where the page is opened from a disk, as here, gaussians are sorted for the camera.
    assert opened.evaluate("window.answers") > 1
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    opened.close()
