"""What the GPU report measures, ordered by worth: a time limit may end it anywhere.

A wave is compiled together, on all cores, and then measured one after the other; waves of the same kind of process that
follow each other share one.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

# Modules that measure, each in a process of its own.
JAX, PYTORCH, TESTS = "gpu_worker", "pytorch_baseline", "maths_tests"
CHOSEN = 0  # chunk size, recomputation and micro-batches as the program chooses them ('auto')
BEST = "best"  # the chunk size that made the denoising (or training) step fastest, of those that were measured


@dataclasses.dataclass(frozen=True)
class Measurement:
    name: str
    kind: str  # of the process's module
    settings: dict[str, Any]
    limit_s: float = 45.0  # for running it; what is compiled first has the wave's limit


@dataclasses.dataclass(frozen=True)
class Wave:
    process: str
    measurements: tuple[Measurement, ...]
    compile_limit_s: float = 240.0


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A config file with overrides for each model that is measured, and how large the rest is."""

    configs: dict[str, tuple[str, ...]]
    chunks: tuple[int, ...]  # rays a chunk of a denoising step
    training_chunks: tuple[int, ...]
    yardstick: tuple[tuple[str, dict[str, Any]], ...]  # name, arguments of the yardstick's function
    steps: int  # of a whole sample
    tokens: tuple[int, ...]  # that attention sees
    attention: tuple[int, int]  # heads, width of one
    lookups: tuple[int, int, int]  # of which gradients are added up: places of a map, points, channels
    product_side: int
    copied_bytes: int
    rounds: int  # of each measurement, after one that warms up
    patience: float  # that limits are multiplied by
    tests: tuple[str, ...]
    test_limit_s: float


def _three(views: int) -> tuple[str, ...]:
    return tuple(f"--config.data.view_sampling.{end}_context={views}" for end in ("min", "max"))


SMALL = (
    "--config.model.encoder.depth=1", "--config.model.scene_field.view_blocks=1",
    "--config.model.conditioning_field.view_blocks=1", "--config.model.ray_marching.num_coarse=4",
    "--config.model.ray_marching.num_fine=4", "--config.model.ray_marching.num_conditioning=4",
    "--config.model.estimate_size=8", "--config.loss.patch_size=4", "--config.image_size=8",
)  # fmt: skip

# The maths on the device: no data, no training runs, no command lines.
TESTS_OF_MATHS = (
    "test_geometry", "test_compositing", "test_ray_sampling", "test_ray_marching", "test_diffusion", "test_models",
    "test_dit", "test_parity", "test_denoiser", "test_linear_forward_model", "test_scene_rendering",
    "test_forward_model", "test_step_cache", "test_number_formats", "test_resnet", "test_pixelnerf",
    "test_image_metrics", "test_samplers", "test_feature_lookup", "test_attention",
)  # fmt: skip

PUBLISHED = Sizes(
    configs={
        "64": ("realestate10k.py:64",),
        "128": ("realestate10k.py:128",),
        "co3d, one view": ("co3d.py:128", *_three(1)),
        "co3d, three views": ("co3d.py:128", *_three(3)),
    },
    chunks=(128, 512, 1024, 4096),
    training_chunks=(128, 1152),
    yardstick=(
        ("denoising step 64", {"what": "denoise", "size": 64}),
        ("denoising step 128", {"what": "denoise", "size": 128}),
        ("training step 64", {"what": "train", "size": 64, "full": True}),
    ),
    steps=12,
    tokens=(256, 1024),
    attention=(16, 72),
    lookups=(2 * 64 * 64, 2 * 24 * 24 * 128, 512),
    product_side=8192,
    copied_bytes=2**31,
    rounds=5,
    patience=1.0,
    tests=TESTS_OF_MATHS,
    test_limit_s=240.0,
)
TINY = Sizes(
    configs={
        "64": ("realestate10k.py:tiny-fine", *SMALL),
        "128": ("realestate10k.py:tiny-fine", *SMALL),
        "co3d, one view": ("co3d.py:tiny-fine", *SMALL, *_three(1)),
        "co3d, three views": ("co3d.py:tiny-fine", *SMALL, *_three(3)),
    },
    chunks=(16, 64),
    training_chunks=(16, 64),
    yardstick=(("training step 64", {"what": "train", "size": 8, "full": False}),),
    steps=2,
    tokens=(16,),
    attention=(2, 8),
    lookups=(16, 32, 8),
    product_side=64,
    copied_bytes=2**16,
    rounds=1,
    patience=20.0,
    tests=("test_compositing",),
    test_limit_s=150.0,
)
SIZES = {"published": PUBLISHED, "tiny": TINY}
PRECISIONS = ("bf16", "tf32", "fp32")

# What the yardstick does not compute, and the batch that it takes.
AS_THE_YARDSTICK = (
    "--config.loss.coarse=0", "--config.loss.distortion=0", "--config.loss.smoothness=0", "--config.train.batch_size=1",
)  # fmt: skip
ONE_SCENE = ("--config.train.batch_size=1",)
FEW_STEPS = ("--config.sample.sampler=dpm-solver++", "--config.sample.spacing=log-snr")


def make_plan(sizes: Sizes) -> list[Wave]:
    """All waves, the most wanted first."""
    return [_patient(wave, sizes.patience) for wave in _waves(sizes)]


def _patient(wave: Wave, factor: float) -> Wave:
    each = tuple(dataclasses.replace(m, limit_s=factor * m.limit_s) for m in wave.measurements)
    return dataclasses.replace(wave, measurements=each, compile_limit_s=factor * wave.compile_limit_s)


def _waves(sizes: Sizes) -> list[Wave]:
    return [
        Wave(PYTORCH, tuple(_yardstick(sizes))),
        Wave(JAX, (*_denoising_64(sizes), *_chosen(sizes), *_products_by())),
        Wave(JAX, (*_chosen_training("64"), *_training_precisions(sizes), *_at_128(sizes))),
        Wave(JAX, (*_precisions(sizes), *_co3d(sizes))),
        Wave(JAX, tuple(_profile(sizes))),
        Wave(JAX, (*_training(sizes), *_resuming())),
        Wave(JAX, tuple(_chosen_training("128"))),
        Wave(JAX, tuple(_sweeps(sizes))),
        Wave(TESTS, tuple(_tests(sizes))),
        Wave(PYTORCH, tuple(_yardstick(sizes, ", at the end"))),
    ]


def measurements(plan: Sequence[Wave]) -> Iterator[Measurement]:
    for wave in plan:
        yield from wave.measurements


def _yardstick(sizes: Sizes, suffix: str = "") -> Iterator[Measurement]:
    precisions = PRECISIONS if not suffix else PRECISIONS[:1]
    for name, arguments in sizes.yardstick:
        for precision in precisions if "128" not in name else PRECISIONS[:1]:
            yield Measurement(f"yardstick: {name}, {precision}{suffix}", "call", arguments | {"precision": precision})


def _part(config: str, program: str, precision: str = "bf16", chunk: int | str = BEST, **more: Any) -> Measurement:
    """A part of inference; `more`: its name, overrides of the config, options of the compiler, the limit."""
    name, limit = more.pop("name", f"{program} {config}, {precision}"), more.pop("limit_s", 45.0)
    settings = {"config": config, "program": program, "precision": precision, "chunk": chunk, **more}
    return Measurement(name, "inference", settings, limit)


def _train(config: str, precision: str = "bf16", chunk: int | str = BEST, **more: Any) -> Measurement:
    name = more.pop("name", f"training step {config}, {precision}")
    settings = {"config": config, "precision": precision, "chunk": chunk, "overrides": ONE_SCENE, **more}
    return Measurement(name, "training", settings)


def _denoising_64(sizes: Sizes) -> Iterator[Measurement]:
    for precision in PRECISIONS:
        yield Measurement(f"products, {precision}", "products", {"precision": precision, "side": sizes.product_side})
    yield Measurement("copy", "copy", {"bytes": sizes.copied_bytes})
    yield _part("64", "preparation", chunk=sizes.chunks[-1])
    for chunk in sizes.chunks:
        yield _part("64", "denoising step", chunk=chunk, name=f"denoising step 64, bf16, chunks of {chunk}")


def _precisions(sizes: Sizes) -> Iterator[Measurement]:
    yield _part("64", "denoising step", "tf32")
    yield _part("64", "denoising step", "fp32")
    yield _part("64", "step with cast parameters")
    yield _part("64", "guided step")
    yield _part("64", "encoder")
    yield _part("64", "rendering")
    for tokens in sizes.tokens:
        for batch in (1, 3):
            for backward in (False, True):
                for implementation in ("xla", "cudnn"):
                    way = "forward and backward" if backward else "forward"
                    yield Measurement(
                        f"attention of {batch} x {tokens} tokens, {way}, {implementation}",
                        "attention",
                        {"shape": (batch, tokens, *sizes.attention), "backward": backward, "by": implementation},
                    )


AS_CHOSEN = ", as chosen"


def _chosen(sizes: Sizes) -> Iterator[Measurement]:
    """Denoising steps as they are where nobody says anything."""
    for config in ("64", "128"):
        yield _part(config, "denoising step", chunk=CHOSEN, name=f"denoising step {config}, bf16{AS_CHOSEN}")


def _products_by() -> Iterator[Measurement]:
    """Denoising steps as chosen, with and without the products that XLA computes by kernels of its own."""
    for products, triton in (("cuBLAS alone", False), ("Triton where XLA chooses it", True)):
        for config in ("64", "128"):
            options = {"xla_gpu_enable_triton_gemm": triton}
            name = f"denoising step {config}, bf16, products by {products}"
            yield _part(config, "denoising step", chunk=CHOSEN, options=options, name=name)


def _chosen_training(config: str) -> Iterator[Measurement]:
    overrides = AS_THE_YARDSTICK if config == "64" else ONE_SCENE
    yield _train(config, chunk=CHOSEN, overrides=overrides, name=f"training step {config}, bf16{AS_CHOSEN}")


def _training(sizes: Sizes) -> Iterator[Measurement]:
    for chunk in sizes.training_chunks:
        name = f"training step 64, bf16, chunks of {chunk}"
        yield _train("64", chunk=chunk, overrides=AS_THE_YARDSTICK, name=name)
    kernels = _train("64", overrides=AS_THE_YARDSTICK, name="kernels of a training step 64, bf16")
    yield dataclasses.replace(kernels, kind="training trace")
    for way in ("in pieces", "at once"):
        for dtype in ("bfloat16", "float32"):
            settings = {"way": f"add_{way.replace(' ', '_')}", "shape": sizes.lookups, "dtype": dtype}
            yield Measurement(f"gradients of lookups, {dtype}, {way}", "lookup gradients", settings)
    # How much memory this takes is among the goals: the small chunks.
    yield _train("co3d, three views", chunk=sizes.training_chunks[0])
    yield from _chosen_training("co3d, three views")


def _at_128(sizes: Sizes) -> Iterator[Measurement]:
    few = (*FEW_STEPS, f"--config.sample.num_steps={sizes.steps}", "--config.sample.guidance=2")
    yield _part("128", "preparation")
    yield _part("128", "denoising step")
    yield _part("128", "sample", overrides=few, name="sample 128, guided, bf16")
    yield _part("64", "sample", overrides=few, name="sample 64, guided, bf16")


def _co3d(sizes: Sizes) -> Iterator[Measurement]:
    for config in ("co3d, three views", "co3d, one view"):
        yield _part(config, "preparation")
        yield _part(config, "denoising step")
    yield _part("co3d, three views", "encoder")
    yield _part("co3d, three views", "video frame")
    yield _part("64", "video frame")


def _training_precisions(sizes: Sizes) -> Iterator[Measurement]:
    for precision in ("tf32", "fp32"):
        yield _train("64", precision, chunk=CHOSEN, overrides=AS_THE_YARDSTICK)


def _profile(sizes: Sizes) -> Iterator[Measurement]:
    common = {"config": "64", "precision": "bf16", "chunk": BEST}
    yield Measurement("kernels of a denoising step 64, bf16", "trace", common | {"program": "denoising step"})
    yield Measurement("rendering 64, bf16: lookups alone", "lookups", common)
    yield Measurement("rendering 64, bf16: marching alone", "marching", common)
    yield Measurement("rendering 64, bf16: products alone", "chained", common)
    yield _part("64", "rendering with maps of one pixel", name="rendering 64, bf16: maps of one pixel")


def _resuming() -> Iterator[Measurement]:
    for name, options in (("by default", {}), ("deterministic", {"xla_gpu_deterministic_ops": True})):
        yield Measurement(f"resuming, {name}", "resume", {"options": options})


def _sweeps(sizes: Sizes) -> Iterator[Measurement]:
    again = (*AS_THE_YARDSTICK, "--config.train.recompute=always")
    yield _train("64", chunk=CHOSEN, overrides=again, name="training step 64, bf16, encoder recomputed")
    for batch in (4, 24):
        more = (*AS_THE_YARDSTICK, f"--config.train.batch_size={batch}")
        yield _train("64", chunk=CHOSEN, overrides=more, name=f"training step 64, bf16, {batch} scenes")
    yield _part("128", "denoising step", chunk=sizes.chunks[0], name="denoising step 128, bf16, the smallest chunks")
    for preparation, step, precision in (
        ("preparation", "denoising step", "tf32"),
        ("guided preparation", "guided step", "bf16"),
    ):
        yield _part("128", preparation, precision)
        yield _part("128", step, precision)


def _tests(sizes: Sizes) -> Iterator[Measurement]:
    yield Measurement("tests of the maths", "pytest", {"files": sizes.tests}, sizes.test_limit_s)
