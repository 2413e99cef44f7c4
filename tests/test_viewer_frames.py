"""The viewer's frames: tiles that are a whole rendering, coarse to fine, for several browsers at once."""

import queue
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.errors import UserError
from dfm_jax.geometry import cast_rays, pixel_grid
from dfm_jax.structs import Camera, RenderedViews
from dfm_jax.viewer.frames import CALLS, TILE, Frame, Speed, compile_calls
from dfm_jax.viewer.limits import SIDES, browser_camera, frame_size
from dfm_jax.viewer.overlays import Look, agreement, depth_along_axis, grid_shape, picture
from dfm_jax.viewer.scheduler import RenderScheduler, Shot, sides

NEAR, FAR = 1.0, 4.0
CAMERA = browser_camera((0.9, 0.1, 0.3, -0.2), (1.0, 2.0, 3.0), 0.8, 1.5)
PATIENCE = 30.0  # seconds for what takes none


class Sky:
    """Shows every ray's direction as a colour, at a distance that depends on it."""

    def __init__(self, grid: str = "centres", shift: float = 0.0):
        self.pixel_grid, self.shift, self.rendered = grid, shift, []
        self.going = threading.Event()  # cleared, rendering waits
        self.going.set()

    def render(self, camera: Camera, height: int, width: int) -> RenderedViews:
        assert self.going.wait(PATIENCE)
        self.rendered.append(np.shape(camera.intrinsics)[:-2])
        xy = pixel_grid(height, width, self.pixel_grid).reshape(-1, 2)
        single = Camera(*(jnp.asarray(x, np.float32) for x in (camera.camera_to_world, camera.intrinsics)))
        directions = np.asarray(cast_rays(single, xy[None] if np.ndim(camera.intrinsics) == 3 else xy).directions)
        rgb = (0.5 + 0.4 * directions + self.shift).reshape(*directions.shape[:-2], height, width, 3)
        return RenderedViews(rgb.astype(np.float32), 2 + rgb[..., 0], np.ones(rgb.shape[:-1], np.float32))


@pytest.mark.parametrize("grid", ["centres", "corners"])
def test_a_frame_of_tiles_is_the_whole_rendering(grid):
    scene, size = Sky(grid), (21, 50)
    frame = Frame([scene], CAMERA, size, grid)
    while not frame.done:
        frame.advance(Speed())
    whole = scene.render(CAMERA, *size)
    np.testing.assert_allclose(frame.views[0].rgb, whole.rgb, atol=2e-6)
    np.testing.assert_allclose(frame.views[0].depth, whole.depth, atol=2e-6)
    assert set(scene.rendered[:-1]) == {(CALLS[0],)}  # one shape, whatever the size


def test_a_finer_frame_shows_the_coarser_one_where_it_is_not_rendered_yet():
    scene = Sky()
    coarse = scene.render(CAMERA, 8, 16)
    frame = Frame([scene], CAMERA, (64, 128), "centres", [coarse])
    np.testing.assert_array_equal(frame.views[0].rgb[::8, ::8], coarse.rgb)
    frame.advance(Speed())
    exact = np.isclose(frame.views[0].rgb, scene.render(CAMERA, 64, 128).rgb, atol=2e-6).all(-1)
    assert exact[32, 64] and not exact[0, 0]  # the middle first
    assert exact.sum() >= CALLS[0] * TILE**2


def test_speed_is_measured_and_chooses_the_first_frame():
    shot = Shot((Sky(),), CAMERA, 2.0, 512)
    assert sides(shot, Speed()) == [32, 64, 128, 256, 512]  # not known: the coarsest first
    pixels = 64 * 32
    assert sides(shot, Speed(pixels / 0.2))[0] == 64
    assert sides(Shot((Sky(),) * 4, CAMERA, 2.0, 512), Speed(pixels / 0.2))[0] == 32  # four scenes take longer
    assert sides(shot, Speed(1e9)) == [512]
    assert compile_calls(Sky(), CAMERA, "centres").pixels_per_second > 0


def test_shots_that_show_the_same_are_not_rendered_again():
    scene = Sky()
    shot = Shot((scene,), CAMERA, 2.0, 512, "colour")
    turned = Camera(np.eye(4), CAMERA.intrinsics)
    assert shot.is_same(Shot((scene,), Camera(CAMERA.camera_to_world.copy(), CAMERA.intrinsics), 2.0, 512, "colour"))
    others = (
        ((Sky(),), CAMERA, 2.0, 512, "colour"),
        ((scene,), turned, 2.0, 512, "colour"),
        ((scene,), CAMERA, 2.0, 512),
    )
    assert not any(shot.is_same(other) for other in (None, *(Shot(*each) for each in others)))


def receiving(scheduler: RenderScheduler, key: int) -> queue.Queue:
    frames: queue.Queue = queue.Queue()
    scheduler.join(key, lambda shown: frames.put((shown.shot, shown.size, shown.complete, shown.final)))
    return frames


def until_final(frames: queue.Queue) -> list:
    seen = [frames.get(timeout=PATIENCE)]
    while not seen[-1][-1]:
        seen.append(frames.get(timeout=PATIENCE))
    return seen


@pytest.fixture
def scheduler():
    made = RenderScheduler("centres")
    yield made
    made.close()


def test_frames_become_finer_until_they_are_the_true_rendering(scheduler):
    scheduler.speed.pixels_per_second = 1.0  # nothing is quick
    frames, shot = receiving(scheduler, 1), Shot((Sky(),), CAMERA, 1.5, 128)
    scheduler.speed.measured = lambda pixels, seconds: None
    scheduler.want(1, shot)
    complete = [size for _, size, done, _ in until_final(frames) if done]
    assert complete == [frame_size(1.5, side) for side in SIDES[:3]]


def test_a_new_camera_ends_fine_frames_but_not_the_first(scheduler):
    scene = Sky()
    frames = receiving(scheduler, 1)
    old, new = Shot((scene,), CAMERA, 1.5, 1024), Shot((scene,), CAMERA, 1.5, 64)
    scheduler.speed.measured = lambda pixels, seconds: None
    scheduler.speed.pixels_per_second = 1.0
    scene.going.clear()
    scheduler.want(1, old)
    scheduler.want(1, new)  # while the first frame of the old one is being rendered, or before
    scene.going.set()
    seen = until_final(frames)
    assert seen[-1][:2] == (new, frame_size(1.5, 64))
    assert all(size == frame_size(1.5, 32) for shot, size, *_ in seen if shot is old)  # nothing finer of it


def test_the_first_frame_of_one_browser_comes_before_fine_ones_of_another(scheduler):
    order, scene = [], Sky()
    scheduler.speed.measured = lambda pixels, seconds: None
    scheduler.speed.pixels_per_second = 1.0
    ended = threading.Event()

    def first(shown):
        order.append(("first", shown.size))
        if len(order) == 2:  # it is at its third level when the other one comes
            scheduler.want(2, Shot((scene,), CAMERA, 1.0, 32))
        if shown.final:
            ended.set()

    scheduler.join(1, first)
    scheduler.join(2, lambda shown: order.append(("second", shown.size)))
    scheduler.want(1, Shot((scene,), CAMERA, 1.0, 256))
    assert ended.wait(PATIENCE)
    assert order[2] == ("second", (32, 32))


def test_a_browser_that_leaves_or_fails_does_not_stop_the_others():
    told = queue.Queue()
    scheduler = RenderScheduler("centres", failed=lambda key, message: told.put((key, message)))
    frames = receiving(scheduler, 2)

    class Broken(Sky):
        def render(self, *_):
            raise UserError("no memory is left")

    scheduler.join(1, lambda shown: None)
    scheduler.want(1, Shot((Broken(),), CAMERA, 1.0, 32))
    assert told.get(timeout=PATIENCE) == (1, "no memory is left")
    scheduler.leave(1)
    scheduler.want(1, Shot((Sky(),), CAMERA, 1.0, 32))  # nobody is there any more
    scheduler.want(2, Shot((Sky(),), CAMERA, 1.0, 32))
    assert until_final(frames)
    scheduler.close()


def test_pictures_of_views():
    views = [Sky(shift=shift).render(CAMERA, 8, 12) for shift in (0.0, 0.05, 0.3)]
    for overlay in ("colour", "depth", "opacity", "uncertainty", "agreement"):
        shown = picture(views, Look(overlay, 1, NEAR, FAR))
        assert shown.shape == (8, 12, 3) and shown.dtype == np.uint8
    assert picture(views, Look("colour", None, NEAR, FAR)).shape == (16, 24, 3)
    assert [grid_shape(count) for count in (1, 2, 3, 4, 5, 9)] == [(1, 1), (1, 2), (2, 2), (2, 2), (2, 3), (3, 3)]
    np.testing.assert_array_equal(agreement(np.stack([each.rgb for each in views]), 0), np.full((8, 12), 0.5))
    assert agreement(views[0].rgb[None], 0).min() == 1


def test_depth_for_3d_objects_lies_along_the_axis():
    sphere = RenderedViews(np.zeros((9, 9, 3)), np.full((9, 9), 3.0), np.ones((9, 9)))
    camera = browser_camera((1, 0, 0, 0), (0, 0, 0), 1.0, 1.0)
    depth = depth_along_axis(sphere, camera, "centres")
    assert depth[4, 4] == pytest.approx(3.0, rel=1e-6)
    assert depth[4, 0] == pytest.approx(3.0 * np.cos(np.arctan(2 * np.tan(0.5) * (0.5 - 0.5 / 9))), rel=1e-6)
    nothing = sphere.replace(opacity=np.zeros((9, 9)))
    assert depth_along_axis(nothing, camera, "centres").min() > 100
