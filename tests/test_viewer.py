"""The viewer without a browser: what it refuses, its jobs and files, and its samples."""

import dataclasses
import logging
import math
import queue
import socket
import threading

import jax
import msgspec
import numpy as np
import pytest
import viser
from viser import _messages as messages
from websockets.exceptions import ConnectionClosed
from websockets.sync import client

import dfm_jax
from dfm_jax.commands import view
from dfm_jax.commands.sample_options import SampleOptions
from dfm_jax.errors import UserError
from dfm_jax.exports.gaussians import Gaussians
from dfm_jax.viewer import limits, objects, samples, server
from dfm_jax.viewer.files import written
from dfm_jax.viewer.jobs import MAX_WAITING, Jobs
from dfm_jax.viewer.paths import KEY_FRAMES, camera_path, with_aspect
from dfm_jax.viewer.returning import Returning
from dfm_jax.viewer.session import Session

PATIENCE = 60.0  # seconds for what takes none


# --- what a browser may say


HUGE = pytest.param(10**400, id="huge")


@pytest.mark.parametrize("value", [0, 601, 2.5, math.nan, math.inf, True, "7", None, [3], HUGE])
def test_numbers_out_of_range_are_refused(value):
    with pytest.raises(UserError, match="whole number from 1 to 600"):
        limits.whole_number(value, 1, limits.MAX_FRAMES, "the number of frames")


def test_numbers_in_range_are_taken():
    assert limits.whole_number(600, 1, 600, "it") == 600 and limits.whole_number(3.0, 1, 600, "it") == 3


@pytest.mark.parametrize(
    "name",
    ["", "../x", "/etc/passwd", "a/b", "a\\b", ".x", "x.mp4", "x\0", "a" * 41, "a b", "ä", "-rf", None, 7, "x\n"],
)
def test_names_that_are_paths_are_refused(name):
    with pytest.raises(UserError, match="no path"):
        limits.file_name(name)


@pytest.mark.parametrize(
    ("wxyz", "position", "fov"),
    [
        ((0, 0, 0, 0), (0, 0, 0), 1.0),
        ((1, 0, 0, math.nan), (0, 0, 0), 1.0),
        ((1, 0, 0, 0), (0, 0, 1e9), 1.0),
        ((1, 0, 0, 0), (0, 0), 1.0),
        ((1, 0, 0, 0), (0, 0, 0), math.inf),
        ("x", (0, 0, 0), 1.0),
        ((1, 0, 0, 0), (0, 0, 0), None),
    ],
)
def test_cameras_that_are_none_are_refused(wxyz, position, fov):
    with pytest.raises(UserError, match="camera"):
        limits.browser_camera(wxyz, position, fov, 1.0)


def test_frames_are_bounded_whatever_the_canvas():
    for size in [(0, 0), (1, 10**9), (10**9, 1), (math.nan, 5), ("x", 5), (None, None), (-5, 5), (10**400, 1)]:
        aspect = limits.aspect_of(*size)
        assert limits.ASPECTS[0] <= aspect <= limits.ASPECTS[1]
        assert all(2 <= side <= 1024 for side in limits.frame_size(aspect, 1024))
    assert limits.frame_size(1.5, 96) == (64, 96) and limits.frame_size(0.5, 64) == (64, 32)
    wide = limits.browser_camera((1, 0, 0, 0), (0, 0, 0), 1e9, 2.0)
    assert wide.intrinsics[1, 1] == pytest.approx(0.5 / math.tan(limits.FIELDS_OF_VIEW[1] / 2))


def test_messages_that_the_page_does_not_send_are_refused():
    change = lambda **updates: server.acceptable(messages.GuiUpdateMessage("id", updates))
    assert change(value=3) and change(value="a name") and change(value=True)
    assert not change(update_cb=[]) and not change(value=3, is_button=True) and not change()
    assert not change(value="x" * 1000) and not change(value=[0] * 1000)
    assert not server.acceptable(messages.ShareUrlRequest())  # it would open a tunnel to the internet
    assert not server.acceptable(messages.FileTransferStartUpload("id", "id", "x", "text/plain", 1, 1))
    assert not server.acceptable("anything else")


@pytest.mark.parametrize(
    ("host", "origin", "local", "ours"),
    [
        ("localhost:8080", "http://localhost:8080", True, True),
        ("localhost:9999", "http://localhost:9999", True, True),  # through a tunnel
        ("localhost:8080", None, True, True),  # not a browser
        ("localhost:8080", "http://evil.example", True, False),
        ("localhost:8080", "http://localhost:3000", True, False),
        ("evil.example:8080", "http://evil.example:8080", True, False),  # a name that was pointed here
        ("evil.example:8080", "http://evil.example:8080", False, True),
        ("", "null", True, False),
    ],
)
def test_pages_of_other_sites_are_refused(host, origin, local, ours):
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    assert server.is_own_page(headers, local) is ours


@pytest.fixture
def served():
    """A server with one control, and how to connect to it from a page of an origin."""
    made = server.start_server("localhost", server.free_port("localhost", 8600), "test")
    address = f"localhost:{made.get_port()}"
    protocol = [f"viser-v{viser.__version__}"]
    connect = lambda origin: client.connect(f"ws://{address}", origin=origin, subprotocols=protocol, compression=None)
    yield made, made.gui.add_number("Steps", 5), connect, f"http://{address}"
    server.stop_server(made)


def sent(message: messages.Message) -> bytes:
    return msgspec.msgpack.encode(message.as_serializable_dict())


def test_a_page_of_another_site_gets_nothing(served):
    _, control, connect, _ = served
    with connect("http://evil.example") as other, pytest.raises(ConnectionClosed) as closed:
        other.send(sent(messages.GuiUpdateMessage(control._impl.uuid, {"value": 7})))
        other.recv(timeout=PATIENCE)
    assert closed.value.rcvd.code == 1008
    assert control.value == 5


def test_messages_of_a_hostile_browser_change_nothing_and_stop_nothing(served, monkeypatch):
    made, control, connect, origin = served
    tunnels, uuid, changed = [], control._impl.uuid, threading.Event()
    monkeypatch.setattr("viser._viser.ViserTunnel", lambda *_: tunnels.append(1))
    control.on_update(lambda event: changed.set())
    camera = messages.ViewerCameraMessage((1, 0, 0, 0), (0, 0, 0), 1.0, 0.1, 9.0, 100, 100, (0, 0, 1), (0, -1, 0))
    with connect(origin) as page:
        page.send(sent(camera))
        page.send(sent(messages.ShareUrlRequest()))
        page.send(sent(messages.GuiUpdateMessage(uuid, {"update_cb": ["x"], "is_button": True})))
        page.send(sent(messages.GuiUpdateMessage(uuid, {"value": 6})))
        assert changed.wait(PATIENCE)
    assert control.value == 6 and not control._impl.is_button and callable(control._impl.update_cb[0])
    with connect(origin) as page:
        page.send(b"this is no message")
        with pytest.raises(ConnectionClosed):
            while True:
                page.recv(timeout=PATIENCE)
    with connect(origin) as page:  # it still answers
        assert page.recv(timeout=PATIENCE)
    assert not tunnels and made.request_share_url() is None


def test_the_next_free_port_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < server.free_port("127.0.0.1", port) <= port + server.TRIED_PORTS
    with pytest.raises(UserError, match="no address"):
        server.free_port("no.such.host.invalid", 8080)
    with pytest.raises(UserError, match="can be listened to"):
        server.free_port("192.0.2.1", 8080)  # of no machine


# --- jobs and files


def test_jobs_are_done_one_after_the_other_and_can_be_stopped():
    ended, going = queue.Queue(), threading.Event()
    jobs = Jobs(lambda job: None, lambda job, message, well: ended.put((message, well)))

    def wait(job):
        while not going.wait(0.01):
            job.progress(0.5)
        return "went on"

    def refuse(job):
        raise UserError("it cannot be")

    def fail(job):
        return 1 / 0

    jobs.add("waiting", wait)
    for work in (refuse, fail, lambda job: "done"):
        jobs.add("something", work)
    going.set()
    assert [ended.get(timeout=PATIENCE) for _ in range(4)] == [
        ("went on", True),
        ("it cannot be", False),
        ("ZeroDivisionError: division by zero", False),
        ("done", True),
    ]
    going.clear()
    jobs.add("waiting", wait)
    while not jobs._current:  # it has been taken from the queue
        threading.Event().wait(0.01)
    for _ in range(MAX_WAITING):
        jobs.add("something", refuse)
    with pytest.raises(UserError, match="waiting to be done"):
        jobs.add("one more", refuse)
    jobs.stop_all()
    assert ended.get(timeout=PATIENCE) == ("stopped waiting", True)
    jobs.close()
    jobs._thread.join(PATIENCE)
    assert ended.empty()


def test_files_are_written_whole_and_never_over_others(tmp_path):
    folder = tmp_path / "view"
    first, second = (written(folder, "a.txt", lambda path: path.write_text("x")) for _ in range(2))
    assert [first.name, second.name] == ["a.txt", "a-2.txt"]

    def fails(path):
        path.write_text("half")
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        written(folder, "b.txt", fails)
    assert sorted(path.name for path in folder.iterdir()) == ["a-2.txt", "a.txt"]


# --- the session, with the shipped model


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """With sample 0, sample in two steps."""
    sampler = dfm_jax.load("toy", steps=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nothing_there"))
        made = Session(sampler, view.of_data_set(sampler.config))
    made.add_sample(sampler, made.source)
    return made


def test_samples_are_those_of_every_other_command(session):
    (sample,) = session.samples
    scenes = sample.sampler.sample(dfm_jax.example_photo(), num_samples=1, seed=sample.sampler.config.seed)
    # Other programs, batched otherwise: float32 through all denoising steps.
    np.testing.assert_allclose(sample.scene.image, scenes[0].image, atol=1e-4)
    camera = scenes[0].target_camera
    # Likewise, and rendered.
    np.testing.assert_allclose(sample.scene.render(camera, 8, 8).rgb, scenes[0].render(camera, 8, 8).rgb, atol=1e-3)
    assert sample.scene.frame.name == "first_camera"


def test_scenes_of_denoising_steps_show_their_predictions(session):
    session.find_steps(session.samples[0])
    (sample,) = session.samples
    # Other programs, batched otherwise: float32 through all denoising steps.
    np.testing.assert_allclose(sample.steps.x0[-1, 0], sample.scene.image, atol=1e-4)
    for step in (1, 2):
        scene = session.scene_at(sample, step)
        size = sample.scene.image.shape[:2]
        seen = scene.render(scene.target_camera, *size).rgb
        # Rendered again by another program.
        np.testing.assert_allclose(seen, sample.steps.x0[step - 1, 0], atol=1e-3)
    assert session.scene_at(sample, 1) is session.scene_at(sample, 1)


def test_a_guided_sample_is_another_and_not_compiled_for_its_scale(session):
    (sample,) = session.samples
    guided = samples.sampled_as(session.sampler, 0, 2, 1.7, "ddim")
    assert guided.config.sample.guidance == 1.7
    one, other = (samples._diffusion(guided.sampled_with(guidance=scale)) for scale in (1.7, 3.0))
    assert jax.tree.structure(one) == jax.tree.structure(other)  # all of a program's identity
    assert (one.guidance_scale, other.guidance_scale) == (np.float32(1.7), np.float32(3.0))
    assert not samples._diffusion(sample.sampler).guided


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((-1, 2, 1.0, "ddim"), "seed"),
        ((0, 10**9, 1.0, "ddim"), "steps"),
        ((0, 2, math.nan, "ddim"), "guidance"),
        ((0, 2, "x", "ddim"), "guidance"),
        ((0, 2, 1.0, "../x"), "sampler"),
        ((0, 2, 1e9, "ddim"), "guidance"),
    ],
)
def test_settings_that_cannot_be_are_refused(session, values, message):
    with pytest.raises(UserError, match=message):
        samples.sampled_as(session.sampler, *values)


def test_a_path_through_key_frames(session):
    with pytest.raises(UserError, match="two key frames"):
        camera_path(session, KEY_FRAMES, 10)
    context, target = session.source.first_context, session.samples[0].scene.target_camera
    session.add_key_frame(context)
    session.add_key_frame(target)
    path = camera_path(session, KEY_FRAMES, 10)
    ends = [context.camera_to_world, target.camera_to_world]
    np.testing.assert_allclose(path.camera_to_world[[0, -1]], ends, atol=1e-6)
    assert camera_path(session, "orbit", 7).camera_to_world.shape == (7, 4, 4)
    with pytest.raises(UserError, match="key frames at most"):
        for _ in range(limits.MAX_KEY_FRAMES):
            session.add_key_frame(context)
    session.remove_key_frames(1)
    assert len(session.key_frames) == limits.MAX_KEY_FRAMES - 1
    session.remove_key_frames()
    assert session.key_frames == ()
    assert with_aspect(path, 2.0).intrinsics[0, 0, 0] == pytest.approx(path.intrinsics[0, 1, 1] / 2)


def test_every_source_has_samples_and_a_first_look_of_its_own(session):
    (sample,), first = session.samples, session.source
    near = dataclasses.replace(first, name="near", example=first.example.replace(target=first.example.context))
    both = Session(session.sampler, [first, near])
    both._samples.append(sample)
    both.add_key_frame(first.first_context)
    both.show("near")
    assert both.samples == () and both.key_frames == ()
    both.show(first.name)
    assert both.samples == (sample,)
    place = first.first_context.camera_to_world[:3, 3]
    for source, degrees in ((first, objects.MOST_SIDEWAYS), (near, objects.LEAST_SIDEWAYS)):
        up, centre, position = objects.overview(source)
        assert np.linalg.norm(position - centre) == pytest.approx(np.linalg.norm(place - centre))
        height = (position - centre) @ up
        assert height == pytest.approx((place - centre) @ up)
        level = [x - centre - height * up for x in (position, place)]
        cosine = level[0] @ level[1] / np.linalg.norm(level[0]) / np.linalg.norm(level[1])
        # The arc cosine of a number near 1.
        assert np.degrees(np.arccos(cosine)) == pytest.approx(degrees, abs=1e-3)


def test_what_is_found_of_a_sample_is_kept_with_it(session):
    (sample,) = session.samples
    found = Gaussians(*(np.zeros((1, *shape)) for shape in ((3,), (3,), (4,), (), (3,))))
    session._know(sample, gaussians=found)
    session._know(sample, steps=sample.steps)  # of the sample as it was before
    assert session.samples[0].gaussians is found
    session._know(sample, gaussians=None)


def test_samples_are_bounded_and_cleared(session, monkeypatch):
    monkeypatch.setattr(limits, "MAX_SAMPLES", 1)
    with pytest.raises(UserError, match="clear them first"):
        session.add_sample(session.sampler, session.source)
    assert session.among_its_like(session.samples[0]).number == 0
    with pytest.raises(UserError, match="what is sampled behind is one of"):
        session.show("../../x")


def test_a_sample_is_found_when_those_before_it_are_cleared(session, monkeypatch):
    (sample,) = session.samples
    others = [dataclasses.replace(sample, scene=dataclasses.replace(sample.scene, number=n)) for n in (2, 1)]
    dark = dataclasses.replace(others[0].scene.sampled, x0=0 * sample.scene.sampled.x0)
    others[0] = dataclasses.replace(others[0], scene=dataclasses.replace(others[0].scene, sampled=dark))
    monkeypatch.setattr(session, "_samples", others)
    assert session.among_its_like(others[0]).image.max() == 0 < session.among_its_like(others[1]).image.max()


def test_photographs_of_ones_own_are_a_source(tmp_path):
    photo = dfm_jax.example_photo().images[0]
    from PIL import Image

    Image.fromarray((255 * photo).astype(np.uint8)).save(tmp_path / "mine.png")
    config = dfm_jax.load("toy").config
    source = view.of_photographs(config, SampleOptions((str(tmp_path / "mine.png"),), fov=39.0))
    assert source.name == "mine.png" and not source.known
    # The picture has 8 bits.
    np.testing.assert_allclose(source.context[1][0], photo, atol=1 / 255)
    with pytest.raises(UserError, match="which is --image"):
        view.view(config, "toy", options=SampleOptions(fov=39.0))


# --- the command


def test_ctrl_c_ends_the_command_and_frees_its_port(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    port, served = server.free_port("localhost", 8500), []

    def pressed():
        with socket.create_connection(("localhost", port), timeout=PATIENCE) as page:
            page.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            served.append(page.recv(100))
        raise KeyboardInterrupt

    monkeypatch.setattr(view, "wait", pressed)
    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt, match="what was written is in"):
        view.view(dfm_jax.load("toy", steps=2).config, "toy", tmp_path, port=port)
    assert served[0].startswith(b"HTTP/1.1 200")
    assert f"http://localhost:{port}" in caplog.text and f"ssh -L {port}:localhost:{port}" in caplog.text
    assert server.free_port("localhost", port) == port


def test_another_address_than_this_machine_is_warned_of(caplog):
    view._tell("0.0.0.0", 8080, 8081, "runs/toy/view")
    assert "there is no password" in caplog.text and "port 8080 is taken" in caplog.text


def test_a_browser_that_comes_back_is_known():
    returning = Returning()
    returning.leave("a", "first")
    returning.leave("a", "second")
    returning.leave("b", "other")
    assert [returning.come(secret) for secret in ("a", "a", "a", "", "b")] == ["second", "first", None, None, "other"]
    for i in range(100):
        returning.leave(str(i), i)
    assert sum(map(len, returning._left.values())) <= 32 and returning.come("99") == 99
