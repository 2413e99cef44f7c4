"""What a sampling run found, as frozen records: `samples.json` is these, and the page is made of nothing else.

Paths are relative to the folder that holds `samples.json`. PSNR is in dB; against true pictures it is None of models
that sample no pictures in colour.
"""

import dataclasses
from typing import Any

from dfm_jax.sampling.assumptions import Assumptions


@dataclasses.dataclass(frozen=True)
class SampleResult:
    rgb_video: str
    depth_video: str
    poster: str  # a frame of rgb_video that shows what the context view does not
    context_psnr: float | None  # the sampled scene rendered at the context camera, against the context image
    # At the target camera, against the truth; low for a good sample that differs from it. None where it is not known.
    target_psnr: float | None
    novel_psnr: float | None  # the same at the other target views; None where there are none
    scene_psnr: float  # the sampled scene at the target camera, against the image that diffusion ended with


@dataclasses.dataclass(frozen=True)
class SceneResult:
    name: str  # of the scene in its data set
    contexts: tuple[str, ...]  # the given images
    truth: str  # the target view as it really is; '' where that is not known, as of a photograph
    estimate: str  # the deterministic estimate of it
    mean: str  # per-pixel mean of the samples at the target view
    variance: str  # per-pixel variance, brightest where it is largest
    uncertainty: str  # the same as a glow over the mean
    contact_sheet: str
    arrays: str  # samples, mean and variance as numbers (.npz)
    samples: tuple[SampleResult, ...]
    estimate_psnr: float | None  # the deterministic estimate against the truth; None where that is not known
    mean_psnr: float | None  # the mean of the samples against the truth
    # Standard deviation of the samples, averaged over pixels and colours, in [0, 1]; None where there is one sample.
    spread: float | None
    photographs: tuple[str, ...] = ()  # of one's own, as viewers show them; none: a data set's
    camera_path: str = ""  # of the videos, as nerfstudio reads it; '' where that has no such cameras
    inside: float = 0.0  # share of the videos' frames whose camera is inside of something opaque
    page_in_3d: str = ""  # of its samples; '': there is none
    gaussians_psnr: float | None = None  # of what that page shows against the sampled scenes themselves, dB


@dataclasses.dataclass(frozen=True)
class HiddenColours:
    """What the samples say about an attribute that the context view hides and whose distribution is known."""

    names: tuple[str, ...]  # of the modes
    probabilities: tuple[float, ...]  # that the scenes were made with
    counts: tuple[int, ...]  # samples nearest to each mode
    seen: tuple[tuple[str, ...], ...]  # [scene][sample]: the mode; '' where the sample is not clean
    purity: float  # share of the samples whose hidden pixels are cleanly of one mode
    total_variation: float  # between counts and probabilities
    estimate_purity: float  # the same of the deterministic estimates, which mix the modes


@dataclasses.dataclass(frozen=True)
class FamiliarityPart:
    name: str
    meaning: str
    value: float  # root mean square over pixels and colours, in [0, 1]
    usual: float | None  # of held-out scenes, on average
    deviations: float | None  # how far above that, in their standard deviations


@dataclasses.dataclass(frozen=True)
class Familiarity:
    """Whether a photograph is like what the model was trained on, see `familiarity.py`."""

    score: float | None  # the largest of the parts' deviations, at least 0; None where nothing is known to compare with
    limit: float | None  # above it, a photograph is unlike the held-out scenes
    unfamiliar: bool | None  # whether it is
    parts: tuple[FamiliarityPart, ...]
    held_out: int  # scenes that it is compared with
    said: str  # where they come from, or why there are none


@dataclasses.dataclass(frozen=True)
class Summary:
    step: int  # training steps behind the parameters
    deterministic: bool  # whether the model knows one answer only (pixelNeRF)
    settings: dict[str, Any]  # config.sample and what else decides the result
    commands: tuple[str, ...]  # that made this; none where it was not made from a command line
    scenes: tuple[SceneResult, ...]
    context_psnr: float | None  # mean over all samples
    estimate_psnr: float | None  # mean over scenes; None where the truth is not known
    spread: float | None  # mean over scenes; None of one sample of each
    hidden: HiddenColours | None  # of data sets with a known hidden attribute
    made_from: dict[str, Any]  # fingerprints, `made_from.model_and_data`
    seconds: dict[str, float]  # wall clock of each stage
    assumptions: Assumptions | None = None  # of photographs of one's own
    familiarity: Familiarity | None = None  # the same
