"""What models are judged by whose target views are not recorded in colour: records in the place of true pictures."""

import numpy as np

from dfm_jax.forward_models.protocol import RecordingModel
from dfm_jax.structs import Example, Views


def as_recorded(model: RecordingModel, example: Example) -> Example:
    """An example whose true views are as the model's cameras record them, which is what its samples are.

    Args:
      example: without batch axis, with what was measured of its views.
    """

    def seen(views: Views) -> Views:
        return views.replace(images=np.asarray(model.recorded_truth(views, example.near, example.far)))

    return example.replace(context=seen(example.context), target=seen(example.target))
