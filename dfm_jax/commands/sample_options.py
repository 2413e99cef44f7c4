"""What `--mode=sample` is told on its command line besides the config: photographs of one's own, and their lens."""

import dataclasses
import os

from dfm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SampleOptions:
    """As typed; None and '' where nothing is said."""

    images: tuple[str, ...] = ()  # photographs of one scene; none: scenes of the data set
    path: str = ""  # of the cameras of videos, instead of `config.sample.video_path`
    cameras: str = ""  # a transforms.json with a frame for each of them
    target: str = ""  # camera
    fov: float | None = None
    focal: float | None = None
    crop: str | None = None
    scale: float | None = None

    def check(self) -> None:
        """
        Raises:
          UserError: something is said of photographs, and there are none, or several have no cameras.
        """
        of_photographs = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[2:]}
        said = [name for name, value in of_photographs.items() if value not in (None, "")]
        if said and not self.images:
            raise UserError(f"--{said[0]} is for photographs of your own: which is --image=?")
        if len(self.images) > 1 and not self.cameras:
            raise UserError(
                f"{len(self.images)} photographs of a scene need their cameras: --cameras=transforms.json, whose "
                "frames name them by file_path"
            )
        if len({os.path.abspath(image) for image in self.images}) < len(self.images):
            raise UserError("a photograph is named twice by --image=")
