"""Feature extractors: names, batches, and agreement with the networks they are of."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from dfm_jax.evaluation import features
from dfm_jax.models import lpips


@pytest.fixture(scope="module")
def extractor():
    rng = np.random.default_rng(0)
    arrays = {
        name: jnp.asarray(rng.normal(size=shape) * np.sqrt(2 / max(1, np.prod(shape[:-1]))), jnp.float32)
        for name, shape in lpips.shapes().items()
    }
    return features.vgg(lpips.Distance(traverse_util.unflatten_dict(arrays, sep="/"), "float32"))


def test_features_of_an_image_do_not_depend_on_the_batch(extractor, monkeypatch):
    monkeypatch.setattr(features, "IMAGES_AT_ONCE", 3)
    images = np.random.default_rng(1).integers(0, 256, (features.IMAGES_AT_ONCE + 2, 16, 16, 3), np.uint8)
    found = extractor(images)
    assert found.shape == (len(images), 512)
    # 13 convolutions, in another order for another batch.
    np.testing.assert_allclose(extractor(images[-2:]), found[-2:], rtol=1e-4, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_features_that_are_not_inceptions_do_not_call_their_distance_fid(extractor):
    assert extractor.prefix + "fid" == "vgg_fid" and "no FID" in extractor.description
