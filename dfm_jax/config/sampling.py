"""Settings of sampling and of evaluation."""

import dataclasses
from typing import Annotated, Literal, get_type_hints

from dfm_jax.config.limits import CountOrNone, Distance, Number, NumberOrNone, Path, Range, Share
from dfm_jax.config.marching import schedule_problem

# The functions behind names, for `pkgutil.resolve_name`: settings are read without importing what does the work.
SAMPLERS = {
    "ddim": "dfm_jax.diffusion.samplers:ddim",  # published
    "ddpm": "dfm_jax.diffusion.samplers:ddpm",  # ancestral: draws noise in every step, and needs many
    "dpm-solver++": "dfm_jax.diffusion.samplers:dpm_solver",  # 2M: as exact as DDIM in far fewer steps
    "dpm-solver++3m": "dfm_jax.diffusion.samplers:dpm_solver_3m",
    "consistency": "dfm_jax.diffusion.samplers:consistency",  # of distilled models, in one step or two
    "unipc": "dfm_jax.diffusion.samplers:unipc",  # as dpm-solver++, with its steps corrected
    "fitted": "dfm_jax.diffusion.fitted_solver:fitted",  # of noise levels and coefficients in a file, for few steps
}
FITTED = "fitted"
SPACINGS = {
    "uniform": "dfm_jax.diffusion.timesteps:uniform_timesteps",  # even in time (published)
    "log-snr": "dfm_jax.diffusion.timesteps:log_snr_timesteps",  # needs fewer steps
    "high-noise": "dfm_jax.diffusion.timesteps:high_noise_timesteps",  # of distilled models
}
# The sampler and the spacing of distilled models: they solve nothing, and mean nothing to others.
OF_DISTILLED = ("consistency", "high-noise")
# Protocols of other people's evaluations; `evaluation/protocols` says what they are.
PROTOCOLS = ("pixelsplat", "pixelsplat-single", "latentsplat-extra", "latentsplat-intra", "latentsplat-360", "seva")
PROTOCOLS += ("viewset", "dfm-realestate10k", "dfm-co3d", "pixelnerf-srn")
# Of `sampling/trajectories.py`, where the first camera is the photograph's, or the first context view's.
VIDEO_PATHS = {
    "interpolate": "from the first camera to the target camera, a little on, and back",
    "orbit": "once around what the first camera looks at",
    "spiral": "around the first camera, in small turns",
    "dolly": "ahead and back",
    "pan": "turned to both sides, where the first camera stands",
    "forward": "ahead",
    "dolly-zoom": "ahead and back, with a lens that keeps what the camera looks at at its size",
    "dataset": "through the cameras of the recording",
}

Angle = Annotated[float, Range(-360.0, 360.0)]
Momentum = Annotated[float, Range(-1.0, 1.0, open_below=True, open_above=True)]


@dataclasses.dataclass(frozen=True)
class PhotographConfig:
    """What is assumed of the middle square of a photograph that comes without a camera."""

    focal_length: Annotated[float, Range(0.05, 1e3)]  # in sides of the square: 1.37 sees 40 degrees
    near: Distance  # its bounds, where `data.near` and `data.far` are 0 (each scene's own)
    far: Distance

    def rules(self) -> list[tuple[bool, str]]:
        return [(0 < self.near < self.far, f"near={self.near:g} must be above 0 and below far={self.far:g}")]


@dataclasses.dataclass(frozen=True)
class TargetCameraConfig:
    """The target camera of such a photograph: the photograph's own, turned about a point ahead of it, then moved."""

    azimuth: Angle = 0.0  # degrees to the right around the point, as seen from above
    elevation: Angle = 0.0  # degrees by which the photograph is taken from above: the axis of the turn is upright
    distance: Distance = 0.0  # of the point, along the photograph's optical axis
    forward: Annotated[float, Range(-1e9, 1e9)] = 0.0  # how far the turned camera moves along its own optical axis


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    num_scenes: Number  # context images to sample from
    num_samples: Number  # samples of each
    sampler: Literal[tuple(SAMPLERS)] = "ddim"
    num_steps: Number  # denoising steps
    spacing: Literal[tuple(SPACINGS)] = "uniform"  # of their noise levels; a fitted solver has its own
    # Of the fitted solver. '': the one of as many steps beside the checkpoint, or else that of the toy model.
    solver_file: Path = ""
    guidance: Annotated[float, Range(-1e3, 1e3)] = 1.0  # 1: none
    # Noise levels, as shares of all, between which to guide; outside, only the conditional branch is computed.
    guidance_from: Share = 0.0
    guidance_to: Share = 1.0
    # Cures for the high saturation of strong guidance (docs/evaluation.md): of these all can be combined.
    guidance_rescale: Share = 0.0  # share of the conditional prediction's contrast that is restored; 0: off
    guidance_parallel: Share = 1.0  # share of the part along the conditional prediction that is kept; 1: off
    guidance_momentum: Momentum = 0.0  # weight of earlier steps, usually negative; 0: off
    # Largest root mean square of the difference that is amplified, in [-1, 1] units; 0: off.
    guidance_bound: Annotated[float, Range(0.0, 1e6)] = 0.0
    temperature: Annotated[float, Range(0.0, 1e3)] = 1.0  # scales the noise that is drawn
    threshold_quantile: Annotated[float, Range(0.0, 1.0, open_below=True)] = 1.0  # of dynamic thresholding; 1: none
    # Frames of the camera path from one sampled view to the next, to which it is context: recorded frames where
    # video_path is 'dataset', else frames of the video. 0: target view 0 is the only one.
    autoregressive_step: CountOrNone = 0
    video_frames: Annotated[int, Range(1, 10**5)] = 1
    # What the context says of the target's rays is kept over the denoising steps, GB a device at most; 0: nothing is.
    context_cache_gb: Annotated[float, Range(0.0, 1e6)] = 0.0
    # Work that is left out, for an error that `python -m dfm_jax.studies.savings_sweep` measures. Of models with a fine
    # field, the field that says where its samples go: 'fine', which is evaluated there anyway, saves the coarse one.
    coarse_pass: Literal["coarse", "fine"] = "coarse"
    # Share of the samples along rays at which the fine field is evaluated, those of the largest expected weight; all
    # others count as empty.
    kept_samples: Annotated[float, Range(0.0, 1.0, open_below=True)] = 1.0
    # How finely denoising steps march from which noise level on: levels NOISE_LEVEL:EVEN[+FINE][/STRIDE] and commas, as
    # in '0:64+32,0.8:24+16/2': at noise levels from 0.8 up, one ray for 2 x 2 pixels, of 24 even and 16 fine samples.
    # (A model of one field is asked twice for these.) Below the first level, and with '', as the model was made.
    marching_schedule: str = ""
    # Of the cameras of videos: one of VIDEO_PATHS; numbers 'azimuth,elevation,distance' or '...,forward', to such a
    # target camera and back; or a file: nerfstudio's camera_path.json, or a transforms.json.
    video_path: Path = "interpolate"
    # Held-out scenes that photographs are compared with, to tell of those that are unlike all that the model knows;
    # they are sampled once, and kept. 0: none.
    reference_scenes: NumberOrNone = 24
    # The first scenes of which `--mode=sample` makes a page in 3D; gaussians are fitted to all their samples. 0: none.
    scenes_in_3d: NumberOrNone = 1
    photograph: PhotographConfig | None = None  # of scenes
    target_camera: TargetCameraConfig | None = None  # of scenes

    def rules(self) -> list[tuple[bool, str]]:
        return [
            (self.guidance_from < self.guidance_to, "guidance_from must be below guidance_to"),
            (not (problem := camera_problem(self.video_path)), f"video_path={problem}"),
            (not (problem := schedule_problem(self.marching_schedule)), f"marching_schedule={problem}"),
        ]


def camera_numbers(text: str) -> TargetCameraConfig | None:
    """The camera that numbers stand for, 'azimuth,elevation,distance' or 'azimuth,elevation,distance,forward', as in
    `TargetCameraConfig`; None of any other text, and of numbers that it cannot have."""
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        return None
    limits = [hint.__metadata__[0] for hint in get_type_hints(TargetCameraConfig, include_extras=True).values()]
    if len(numbers) not in (3, 4) or any(limit.problem(x) for limit, x in zip(limits, numbers, strict=False)):
        return None
    return TargetCameraConfig(*numbers)


def camera_problem(text: str) -> str:
    """What is wrong with the name of a camera path, with numbers or with the name of a file; '' if nothing is."""
    if text in VIDEO_PATHS or camera_numbers(text) or text.endswith(".json"):
        return ""
    return (
        f"{text!r} is none of {', '.join(VIDEO_PATHS)}, nor the numbers azimuth,elevation,distance[,forward] of a "
        "camera (degrees, and units of the model), nor a .json file of cameras"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What `--mode=evaluate` measures; how it samples is `SampleConfig`'s."""

    # Whose protocol the numbers are compared with (`python -m dfm_jax.evaluation.protocols list`); '': nobody's
    protocol_name: Literal[("", *PROTOCOLS)] = ""
    index: Path = ""  # index file of the views (docs/evaluation.md); '': sampled from `data.eval_split`, and stored
    num_scenes: Number  # scenes to evaluate; an index file has its own
    num_target: Annotated[int, Range(1, 1000)] = 1  # target views of each; an index file has its own
    num_samples: Number  # samples of each scene
    inception_file: Path = ""  # weights of Inception v3 for FID and KID; '': VGG16's features, under another name
    fvd_weights: Path = ""  # weights of I3D for FVD (docs/evaluation.md); '': no FVD
    dists_file: Path = ""  # weights of DISTS; '': those of the package dists-pytorch, if it is installed
    # Scales of the cameras of each example, evenly from 2 / num_scales to 2, of which the best by PSNR counts: a single
    # view does not tell the scale. 0: the data set's own alone.
    num_scales: Annotated[int, Range(0, 1000)] = 0
    # Samples of each scene whose cameras structure-from-motion looks for (extra `sfm`), for R_err and T_err; 0: none
    camera_errors: NumberOrNone = 0
    # 'respect': true and rendered views are compared in the foreground alone, by masks that the data set holds
    # (`prepare --masks=leave`).
    masks: Literal["none", "respect"] = "none"
    sweep_samples: NumberOrNone = 0  # samples behind each point of total variation over sampling steps; 0: none
