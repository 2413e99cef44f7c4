"""The protocols by name. Numbers are those that the named source states; where none could be read, none is given."""

import dataclasses
from collections.abc import Mapping, Sequence

from dfm_jax.evaluation.best_of import BEST_OF
from dfm_jax.evaluation.index_layouts import Entry

PAIRED = ("psnr", "ssim", "lpips")
UNREAD = "Which numbers were published with it could not be read."


@dataclasses.dataclass(frozen=True)
class Published:
    """Numbers that were published with a protocol."""

    by: str
    numbers: Mapping[str, float]  # as `metrics.json` calls them
    source: str
    scenes: int | None = None  # that they are means of; None: not stated


@dataclasses.dataclass(frozen=True)
class Protocol:
    name: str
    layout: str  # of the index file
    rule: str  # how the file is read
    context: int | None  # context views of an example that are used; None: all that are listed
    targets: str
    resolution: int | None  # pixels a side; None: not stated
    crop: str
    metrics: tuple[str, ...]  # as `metrics.json` calls them
    published: tuple[Published, ...] = ()
    index: str = ""  # the index file that is shipped
    best_of: tuple[int, ...] = ()
    notes: str = ""

    def used(self, entries: Sequence[Entry]) -> list[Entry]:
        """Examples with the context views that the protocol gives."""
        return [dataclasses.replace(entry, context=entry.context[: self.context]) for entry in entries]


CENTRE = "the middle square"
BY_SCENE = "{scene: {context, target} or null}"
LISTS = "{scene: [{context, target}, ...]}"
LVSM, PIXELSPLAT_PAGE = "LVSM's README", "wizwand's page of results"
SPLATTED = Protocol(
    name="latentsplat-extra",
    layout=LISTS,
    rule="both context frames; an empty list: the scene has none",
    context=None,
    targets="3 outside of the context frames, at most 45 frames away",
    resolution=256,
    crop=CENTRE,
    metrics=(*PAIRED, "dists", "fid", "kid"),
    notes="RealEstate10K; CO3D hydrant and teddybear, 20 examples a scene. " + UNREAD,
)
VIEWSET_BEST = tuple(f"psnr_best_of_{count}" for count in BEST_OF)

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="pixelsplat",
            layout=BY_SCENE,
            rule="both context frames; null: the scene has none",
            context=None,
            targets="3 between the context frames",
            resolution=256,
            crop=CENTRE,
            metrics=PAIRED,
            published=(
                Published("LVSM, decoder-only", {"psnr": 29.67, "ssim": 0.906, "lpips": 0.098}, LVSM),
                Published("LVSM, encoder-decoder", {"psnr": 28.60, "ssim": 0.893, "lpips": 0.114}, LVSM),
                Published("pixelSplat", {"psnr": 26.09}, PIXELSPLAT_PAGE),
                Published("DVSM (split not verified)", {"psnr": 31.23}, PIXELSPLAT_PAGE),
            ),
            notes="interpolation between two views, where a deterministic model does best",
        ),
        Protocol(
            name="pixelsplat-single",
            layout=BY_SCENE,
            rule="the first context frame alone; null: the scene has none",
            context=1,
            targets="3 between the two context frames that are listed",
            resolution=256,
            crop=CENTRE,
            metrics=PAIRED,
            published=(
                Published(
                    "Open-DiffusionGS", {"psnr": 21.26, "ssim": 0.672, "lpips": 0.257}, "its README", scenes=6474
                ),
            ),
        ),
        SPLATTED,
        dataclasses.replace(
            SPLATTED,
            name="latentsplat-intra",
            targets="3 between the context frames",
        ),
        dataclasses.replace(
            SPLATTED,
            name="latentsplat-360",
            targets="every frame, 20 an example, the context frames too",
            notes="CO3D hydrant, 4 scenes. " + UNREAD,
        ),
        Protocol(
            name="seva",
            layout="train_test_split_N.json beside transforms.json, a folder each scene",
            rule="train_ids are the N context views, test_ids the targets; the folder names the scene",
            context=None,
            targets="test_ids",
            resolution=None,
            crop="not stated",
            metrics=PAIRED,
            notes=(
                "RealEstate10K: D (4DiM; its scenes turned out to be training scenes), R (ReconFusion), P (pixelSplat) "
                "and V (ViewCrafter); CO3D: R and V. Of a single view SEVA takes the best of 20 scales of the cameras: "
                "--config.evaluate.num_scales=20. " + UNREAD
            ),
        ),
        Protocol(
            name="viewset",
            layout='ours: {"examples": [...]}',
            rule="all context views that are listed",
            context=None,
            targets="as listed; CO3D 100 examples, Minens 200",
            resolution=128,
            crop=CENTRE,
            metrics=(*VIEWSET_BEST, "lpips", "ssim_best", "mean_sample_psnr"),
            best_of=BEST_OF,
            notes="Minens has 48 x 48 pixels; 20 samples of each example. " + UNREAD,
        ),
        Protocol(
            name="dfm-realestate10k",
            layout='ours: {"examples": [...]}',
            rule="the first frame",
            context=None,
            targets="frame 150",
            resolution=128,
            crop=CENTRE,
            metrics=("fid", "kid", *PAIRED),
            published=(Published("DFM", {"fid": 42.84, "kid": 0.01}, "as cited by later work"),),
            index="configs/protocols/realestate10k.json",
            notes="which scenes the numbers are means of is not stated",
        ),
        Protocol(
            name="dfm-co3d",
            layout='ours: {"examples": [...]}',
            rule="the first frame",
            context=None,
            targets="frame 100",
            resolution=128,
            crop=CENTRE,
            metrics=(*PAIRED, "fid"),
            published=(
                Published("DFM, hydrants", {"psnr": 17.47, "lpips": 0.42, "fid": 84.63}, "as cited by later work"),
            ),
            index="configs/protocols/co3d.json",
            notes="which scenes the numbers are means of is not stated",
        ),
        Protocol(
            name="pixelnerf-srn",
            layout='ours: {"examples": [...]}',
            rule="view 64",
            context=None,
            targets="the 250 other views",
            resolution=128,
            crop="none: pictures are square",
            metrics=PAIRED,
            index="configs/protocols/pixelnerf_srn.json",
            notes="ShapeNet-SRN cars. " + UNREAD,
        ),
    )
}
