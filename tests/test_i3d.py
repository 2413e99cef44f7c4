"""I3D against its layers in torch, at random weights, and files that are not its weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.errors import UserError
from dfm_jax.evaluation import video_distance
from dfm_jax.interop import i3d as interop
from dfm_jax.models import i3d
from tests.tiny import jit

FRAMES, SIDE = 9, 40  # enough for every pooling, odd sizes among them


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """Random weights and statistics under pytorch-i3d's names."""
    rng = np.random.default_rng(0)
    state = {}
    for layer, leaves in i3d.shapes().items():
        *sides, inputs, outputs = leaves["kernel"].shape
        kernel = rng.standard_normal((outputs, inputs, *sides), np.float32)
        state[f"{layer}.conv3d.weight"] = kernel * np.float32(np.sqrt(2 / (inputs * np.prod(sides))))
        if layer == "logits":
            state["logits.conv3d.bias"] = rng.standard_normal(outputs, np.float32)
            continue
        state[f"{layer}.bn.weight"] = rng.uniform(0.5, 1.5, outputs).astype(np.float32)
        state[f"{layer}.bn.bias"] = 0.2 * rng.standard_normal(outputs, np.float32)
        state[f"{layer}.bn.running_mean"] = 0.2 * rng.standard_normal(outputs, np.float32)
        state[f"{layer}.bn.running_var"] = rng.uniform(0.5, 2.0, outputs).astype(np.float32)
    return state | {"Mixed_3b.b0.bn.num_batches_tracked": np.array(7)}


def in_torch(state, videos):
    """The network as the paper's figure has it, of torch's own layers, padded as TensorFlow pads."""
    torch = pytest.importorskip("torch", reason="compares with torch")
    functional = torch.nn.functional
    weights = {name: torch.from_numpy(np.asarray(x)) for name, x in state.items()}

    def padded(x, window, strides):
        pads = []
        for size, w, s in zip(x.shape[2:], window, strides, strict=True):
            total = max(0, (-(-size // s) - 1) * s + w - size)
            pads = [total // 2, total - total // 2, *pads]  # torch names the last dimension first
        return functional.pad(x, pads)

    def unit(x, name, stride=1):
        kernel = weights[f"{name}.conv3d.weight"]
        x = functional.conv3d(padded(x, kernel.shape[2:], (stride,) * 3), kernel, stride=stride)
        norm = [weights[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.relu(functional.batch_norm(x, *norm, eps=1e-3))

    def pool(x, window, strides):
        return functional.max_pool3d(padded(x, window, strides), window, strides)  # of numbers that are not negative

    def mixed(x, name):
        pooled = pool(x, (3, 3, 3), (1, 1, 1))
        pair = lambda branch: unit(unit(x, f"{name}.{branch}a"), f"{name}.{branch}b")
        return torch.cat([unit(x, f"{name}.b0"), pair("b1"), pair("b2"), unit(pooled, f"{name}.b3b")], dim=1)

    x = torch.from_numpy(videos.transpose(0, 4, 1, 2, 3).copy())
    with torch.no_grad():
        x = pool(unit(x, "Conv3d_1a_7x7", stride=2), (1, 3, 3), (1, 2, 2))
        x = pool(unit(unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
        x = pool(mixed(mixed(x, "Mixed_3b"), "Mixed_3c"), (3, 3, 3), (2, 2, 2))
        for block in "bcdef":
            x = mixed(x, f"Mixed_4{block}")
        x = pool(x, (2, 2, 2), (2, 2, 2))
        x = mixed(mixed(x, "Mixed_5b"), "Mixed_5c")
        x = functional.avg_pool3d(x, (2, *x.shape[3:]), stride=1)
        x = functional.conv3d(x, weights["logits.conv3d.weight"], weights["logits.conv3d.bias"])
    return x.mean(dim=(2, 3, 4)).numpy()


def test_logits_are_those_of_torchs_layers(state, tmp_path):
    np.savez(tmp_path / "i3d.npz", **state)
    params = interop.load(tmp_path / "i3d.npz")
    videos = np.random.default_rng(1).uniform(-1, 1, (2, FRAMES, SIDE, SIDE, 3)).astype(np.float32)
    ours = jit(lambda params, x: i3d.I3D().apply({"params": params}, x))(params, videos)
    expected = in_torch(state, videos)
    assert ours.shape == expected.shape == (2, i3d.CLASSES)
    # Float32, in another order.
    assert np.linalg.norm(ours - expected) < 1e-4 * np.linalg.norm(expected)


def test_videos_of_bytes_enter_between_minus_one_and_one_at_the_networks_size(monkeypatch):
    class Seen:
        def apply(self, variables, videos):
            sizes = jnp.array(videos.shape[2:4], jnp.float32)
            seen = jnp.concatenate([videos[0, 0, 112, ::223, 0], sizes])
            return jnp.pad(seen, (0, i3d.CLASSES - len(seen)))[None]

    monkeypatch.setattr(i3d, "I3D", Seen)
    video = np.zeros((FRAMES, 8, 8, 3), np.uint8)
    video[:, :, 4:] = 255
    left, right, height, width = video_distance.VideoNetwork({})(video)[:4]
    assert (left, right, height, width) == (-1, 1, 224, 224)


def test_the_network_has_the_published_size():
    """12.7 million numbers with its 400 classes, two vectors of each batch normalisation folded into one bias."""
    assert round(sum(x.size for x in jax.tree.leaves(i3d.shapes())) / 1e6, 1) == 12.7


def test_weights_of_something_else_are_one_error_that_says_what_is_wrong(state, tmp_path):
    def error(arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(UserError, match="does not hold the weights of I3D") as raised:
            interop.load(tmp_path / "a.npz")
        return str(raised.value)

    bias = "logits.conv3d.bias"
    assert f"{bias} is (3,), not (400,)" in error(state | {bias: np.zeros(3, np.float32)})
    assert "missing: Conv3d_2b_1x1.bn.bias" in error(
        {name: x for name, x in state.items() if name.startswith("Conv3d_1a")}
    )


# --- FVD


class MeanColours(video_distance.VideoNetwork):
    """In the place of the network."""

    def __call__(self, video):
        assert len(video) == i3d.FRAMES
        return video.mean((0, 1, 2))


def scene(value, frames=20, samples=3):
    truth = np.full((frames, 4, 4, 3), value, np.uint8)
    truth[:, ..., 0] += np.arange(frames, dtype=np.uint8)[:, None, None]
    return {"truth": truth, "samples": np.stack([truth + i for i in range(samples)])}


def test_fvd_compares_the_first_frames_of_every_example_that_has_as_many():
    network = MeanColours(None)
    equal = [scene(value, samples=1) for value in (10, 30, 90)]
    numbers, missing = video_distance.video_numbers(network, equal)
    assert numbers["fvd"] == pytest.approx(0, abs=1e-6) and missing == {}
    numbers, _ = video_distance.video_numbers(network, (scene(v, frames) for v, frames in ((0, 16), (9, 15), (50, 20))))
    assert numbers["fvd"] > 0 and (numbers["num_drawn_videos"], numbers["num_real_videos"]) == (6, 2)
    numbers, missing = video_distance.video_numbers(network, [scene(0), scene(9, 15)])
    assert numbers == {} and "1 of 2 examples have a video, which is 16 target views" in missing["fvd"]
