"""`--mode=view`: sampled scenes in a browser, to turn, compare, and render."""

import logging
import os
import threading
from pathlib import Path

from dfm_jax import interrupts
from dfm_jax.commands.coordinates import of_evaluation_examples
from dfm_jax.commands.sample_options import SampleOptions
from dfm_jax.commands.sampled_from import photographs_said
from dfm_jax.config import Config
from dfm_jax.data.loading import pipeline, toy_data
from dfm_jax.data.loading.example_photo import example_photo
from dfm_jax.errors import UserError
from dfm_jax.forward_models.build import require_scenes
from dfm_jax.runs.checkpoint_files import require_checkpoints
from dfm_jax.runs.workdirs import results_folder
from dfm_jax.sampling.placement import Placement
from dfm_jax.sampling.sources import source_frame, to_example
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.viewer.app import Viewer
from dfm_jax.viewer.server import LOCAL_NAMES, free_port
from dfm_jax.viewer.sources import Source, scenes_of_data_set

logger = logging.getLogger(__name__)

DATA_SET = SampleOptions()
HOST, PORT = "localhost", 8080


def view(
    config: Config,
    workdir: str | os.PathLike,
    out: str | os.PathLike | None = None,
    host: str = HOST,
    port: int = PORT,
    options: SampleOptions = DATA_SET,
) -> None:
    """Serves the viewer of the latest averaged parameters of `workdir` until Ctrl-C; what it writes goes to `out`, by
    default `<workdir>/view`.

    Args:
      options: photographs to sample behind, if not scenes of the data set.

    Raises:
      UserError: there is no checkpoint, it is of another model or of none of scenes; nothing is there to sample behind;
        or the address cannot be listened to.
    """
    options.check()
    require_scenes(config, "--mode=view")
    require_checkpoints(workdir)
    folder, free = results_folder(workdir, "view", out), free_port(host, port)
    sampler = restore_trained(config, workdir)
    sources = [of_photographs(config, options)] if options.images else of_data_set(config)
    viewer = Viewer(sampler, sources, folder, host, free)
    try:
        with interrupts.staying(f"what was written is in {folder}"):
            _tell(host, port, viewer.port, folder)
            wait()
    finally:
        viewer.close()


def wait() -> None:
    """Until Ctrl-C."""
    threading.Event().wait()


def of_photographs(config: Config, options: SampleOptions) -> Source:
    """
    Raises:
      UserError: one cannot be read, or what is said of its camera cannot be.
    """
    photographs, placement = photographs_said(config, options)
    given = to_example(photographs, config, placement)
    name = ", ".join(os.path.basename(image) for image in options.images)
    return Source(name, given.example, given.world, source_frame(photographs, placement))


def of_data_set(config: Config) -> list[Source]:
    """Held-out scenes of the config's data set; where a toy's is not here, the photograph that is shipped.

    Raises:
      UserError: neither is there.
    """
    number = config.sample.num_scenes
    try:
        data = toy_data.with_toy_folder(config).data
        example, names = pipeline.evaluation_examples(data, image_size=config.image_size, num_scenes=number)
    except UserError as error:
        if not config.data.toy_scenes:
            raise UserError(f"{error}; or sample behind a photograph, with --image=") from error
        logger.info("the data set is not here: scenes are sampled behind the photograph that ships")
        photograph, placement = example_photo(config.data.name), Placement()
        given = to_example(photograph, config, placement)
        frame = source_frame(photograph, placement)
        return [Source("example photograph", given.example, given.world, frame)]
    return scenes_of_data_set(example, names, *of_evaluation_examples(data, number))


def _tell(host: str, asked: int, port: int, folder: Path) -> None:
    if port != asked:
        logger.warning("port %d is taken: this is port %d", asked, port)
    if host not in LOCAL_NAMES:
        logger.warning(
            "warning: whoever reaches %s:%d can use this viewer, and write to %s: there is no password",
            host,
            port,
            folder,
        )
    logger.info(
        "look at http://%s:%d; Ctrl-C ends it. From another machine, open http://localhost:%d after", host, port, port
    )
    logger.info("  ssh -L %d:localhost:%d %s", port, port, os.uname().nodename)
