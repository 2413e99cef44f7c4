"""What models are judged by whose target views are not recorded in colour: records in the place of pictures."""

import numpy as np

from dfm_jax.evaluation.scores import SceneSamples
from dfm_jax.forward_models.protocol import RecordingModel
from dfm_jax.structs import Example, Views


def as_recorded(model: RecordingModel, example: Example, samples: SceneSamples) -> tuple[Example, SceneSamples]:
    """The samples of one scene and its true views, each view as the model's cameras record it: as `measure` takes them.

    Args:
      example: without batch axis, with what was measured of its views.
    """
    near, far = example.near, example.far

    def seen(views: Views) -> Views:
        return views.replace(images=np.asarray(model.recorded_truth(views, near, far)))

    rgb = np.asarray(model.recorded_views(samples.views, near, far))
    true = example.replace(context=seen(example.context), target=seen(example.target))
    return true, samples.replace(views=samples.views.replace(rgb=rgb))
