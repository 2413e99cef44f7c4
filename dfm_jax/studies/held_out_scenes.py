"""The examples that studies measure on: always the same views of scenes that training never saw.

Letters: `s` scene.
"""

import dataclasses
from collections.abc import Sequence

from dfm_jax.config import Config
from dfm_jax.data.loading import dataset, evaluation_views
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.structs import Example


@dataclasses.dataclass(frozen=True)
class HeldOutScenes:
    data: SceneDataset
    views: Sequence[tuple[int, ViewIndices]]  # [s]
    example: Example  # [s], with target views beside the one that diffusion noises

    @classmethod
    def of(
        cls,
        config: Config,
        num_scenes: int,
        num_target: int,
        *,
        fewer: bool = False,
        option: str = "the number of scenes",
    ) -> "HeldOutScenes":
        """As `evaluation_views` chooses them.

        Args:
          option: that an error names, without `fewer`.

        Raises:
          UserError: the data set is not there, or has not as many and `fewer` will not do.
        """
        sampling = dataclasses.replace(config.data.view_sampling, num_target=num_target)
        wanted = dataclasses.replace(config.data, view_sampling=sampling)
        views = evaluation_views.evaluation_views(wanted, num_scenes=num_scenes, fewer=fewer, option=option)
        data = dataset.open_dataset(wanted.dir, wanted.name, wanted.eval_split)
        return cls(data, views, evaluation_views.load_views(wanted, views, image_size=config.image_size, data=data))
