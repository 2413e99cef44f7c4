"""The teacher of a distilled model: a trained one, sampled as its own config says."""

from dfm_jax.config import FITTED, Config
from dfm_jax.config.changes import with_sampling
from dfm_jax.config.reading import from_dict
from dfm_jax.errors import UserError
from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.solver_files import with_solver_file

# Those that draw noise in their steps end anywhere; the states of a fitted solver are not at the levels that the
# denoiser is told.
WITHOUT_TRAJECTORY = ("ddpm", "consistency", FITTED)


def load_teacher(config: Config) -> DiffusionSampler:
    """The model that `config.distillation` names, with its averaged parameters.

    Raises:
      UserError: there is no checkpoint, or it is of a model that cannot teach this one; or its solver is not there.
    """
    name = config.distillation.teacher
    params, _, settings = restore_params(name)
    changes = {"sampler": config.distillation.sampler or None, "num_steps": config.distillation.num_steps or None}
    theirs = with_sampling(from_dict(settings), changes)
    _check(theirs, config, name)
    return DiffusionSampler.from_config(with_solver_file(theirs, name), params)


def _check(theirs: Config, ours: Config, name: str) -> None:
    """What the teacher says must mean the same to the student."""
    pairs = {
        "model.name": (theirs.model.name, ours.model.name),
        "image_size": (theirs.image_size, ours.image_size),
        "diffusion.num_timesteps": (theirs.diffusion.num_timesteps, ours.diffusion.num_timesteps),
    }
    wrong = [
        f"config.{setting} is {there!r} there and {here!r} here"
        for setting, (there, here) in pairs.items()
        if there != here
    ]
    if theirs.model.deterministic:
        wrong.append("it is deterministic, and has no steps that could be saved")
    if theirs.sample.sampler in WITHOUT_TRAJECTORY:
        wrong.append(
            f"the sampler {theirs.sample.sampler!r} has no trajectory of noise levels to learn: "
            "name another with config.distillation.sampler"
        )
    if wrong:
        raise UserError(f"config.distillation.teacher={name} cannot teach this model: {'; '.join(wrong)}")
