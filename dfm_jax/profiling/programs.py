"""The programs of a config: what is compiled and timed, with synthetic arguments.

Inference is one scene on one device; the training step takes the config's batch, on all of them.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dfm_jax.config import Config
from dfm_jax.config.automatic import with_dtype
from dfm_jax.denoiser import StepCache
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import ForwardModel, SceneModel, frozen_groups
from dfm_jax.profiling.measure import Compiled, Program, compile_program
from dfm_jax.profiling.synthetic import synthetic_example
from dfm_jax.profiling.synthetic_parameters import synthetic_parameters
from dfm_jax.runs.train_state import TrainState, create
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.solver_files import with_solver_file
from dfm_jax.training import sharding
from dfm_jax.training.choices import fitted
from dfm_jax.training.optimizers import make_optimizer
from dfm_jax.training.setup import TrainSetup, make_train_setup

PRODUCT_SIDE = {"cpu": 2048}  # of square matrices whose product shows what the device can do; elsewhere:
PRODUCT_SIDE_ACCELERATOR = 8192
PRODUCTS = 10


@dataclasses.dataclass(frozen=True)
class Part:
    """A function, and the names of its arguments: those of `Inference.given`, or of the part that makes one."""

    function: Callable
    arguments: tuple[str, ...]


class Inference:
    """What a config computes for one scene, part by part.

    Arguments are shapes until a program runs; `arrays` then makes them by running the parts that they come from.
    """

    def __init__(self, config: Config):
        self.config = config = with_dtype(config, jax.default_backend())
        self.model = make_model(config)
        self.parts = inference_parts(config, self.model)
        self._shapes: dict[str, Any] = {}

    def given(self, name: str) -> Any:
        """Arguments that no part makes, to be called by one that compiles or evaluates shapes."""
        config, key = self.config, jax.random.key(self.config.seed)
        if name == "params":
            return synthetic_parameters(self.model, key)
        if name == "cast params":
            params = synthetic_parameters(self.model, key)
            return jax.tree.map(lambda x: x.astype(compute_dtype(config)), params)
        if name == "keys":
            return jax.random.split(key, 1)
        if name == "camera":
            return jax.tree.map(lambda x: x[:, :1], self.example.target.camera)
        if name in ("x_t", "average"):
            return jax.random.normal(key, jax.eval_shape(self.model.target, self.example)[0].shape)
        if name == "timestep":
            return jnp.full(1, config.diffusion.num_timesteps // 2, jnp.int32)
        raise KeyError(name)

    @property
    def example(self) -> Any:
        return synthetic_example(self.config, 1)

    def shapes(self, name: str) -> Any:
        """Of an argument or of the result of a part."""
        if name not in self._shapes:
            if name in self.parts:
                part = self.parts[name]
                shapes = jax.eval_shape(part.function, *map(self.shapes, part.arguments))
            elif name == "example":
                shapes = jax.eval_shape(lambda: self.example)
            else:
                shapes = jax.eval_shape(partial(self.given, name))
            self._shapes[name] = shapes
        return self._shapes[name]

    def compile(self, name: str, **settings: Any) -> Compiled:
        """One of the parts; `settings` are those of `compile_program`."""
        part = self.parts[name]
        return compile_program(part.function, *map(self.shapes, part.arguments), **settings)

    def arrays(self, name: str, run: Callable[[str], Any]) -> Any:
        """An argument.

        Args:
          run: the result of a part.
        """
        if name in self.parts:
            return run(name)
        return self.example if name == "example" else compile_quickly(partial(self.given, name))


def inference_parts(config: Config, model: ForwardModel) -> dict[str, Part]:
    as_configured = partial(DiffusionSampler.from_config, with_solver_file(config))
    plain = partial(as_configured, settings=dataclasses.replace(config.sample, guidance=1.0))
    scale = 2.0 if config.sample.guidance == 1 else config.sample.guidance
    guided = partial(as_configured, settings=dataclasses.replace(config.sample, guidance=scale))
    step = ("params", "preparation", "x_t", "timestep")

    def denoise(params: Any, cache: StepCache, x_t: Array, timestep: Array) -> Array:
        return plain(params).denoise_fn(cache)(x_t, timestep, jnp.zeros_like(x_t))[0]

    def guided_step(params: Any, cache: StepCache, x_t: Array, timestep: Array, average: Array) -> tuple:
        return guided(params).denoise_fn(cache)(x_t, timestep, average)

    parts = {
        "preparation": Part(lambda params, x: plain(params).cache_context(x), ("params", "example")),
        "guided preparation": Part(lambda params, x: guided(params).cache_context(x), ("params", "example")),
        "encoder": Part(partial(_encode, model), step),
        "rendering": Part(
            lambda params, *given: _render(plain(params).observers[0][1], params, *given),
            ("params", "encoder", "preparation"),
        ),
        "denoising step": Part(denoise, step),
        # What casting the parameters costs, in every step.
        "step with cast parameters": Part(denoise, ("cast params", *step[1:])),
        "guided step": Part(guided_step, ("params", "guided preparation", "x_t", "timestep", "average")),
        "sample": Part(
            lambda params, example, keys: as_configured(params).sample(example, keys).x0, ("params", "example", "keys")
        ),
    }
    if isinstance(model, SceneModel):
        size = {"height": model.image_size, "width": model.image_size}
        frame = lambda params, scene, camera: as_configured(params).render(scene, camera, **size)
        parts["video frame"] = Part(frame, ("params", "encoder", "camera"))
    return parts


def _encode(model: ForwardModel, params: Any, cache: StepCache, x_t: Array, timestep: Array) -> Any:
    return model.infer(params, cache.context, x_t, timestep).signal


def _render(model: ForwardModel, params: Any, signal: Any, cache: StepCache) -> Any:
    return model.observe(params, signal, cache.query)


def compute_dtype(config: Config) -> str:
    """Of the model's networks; those that know no other are float32."""
    return getattr(config.model, "compute_dtype", "float32")


class Training:
    """The training step of a config, on all devices."""

    def __init__(self, config: Config, setup: TrainSetup | None = None):
        """
        Raises:
          UserError: the loss needs weights that are not there, or the devices do not fit the mesh or the batch.
        """
        self.config = config = fitted(config)
        self.setup = setup or make_train_setup(config)
        self.mesh = sharding.make_mesh(config.train.mesh)
        sharding.check_batch_size(config.train.batch_size, config.train.accumulate, self.mesh)

    def init(self, key: Array) -> TrainState:
        """A state with synthetic parameters."""
        model = make_model(self.config)
        params = synthetic_parameters(model, key)
        return create(params, make_optimizer(self.config.train.optimizer), frozen_groups(model))

    def compile(self, **settings: Any) -> Compiled:
        config, mesh = self.config, self.mesh
        state = sharding.abstract_state(self.init, mesh, config.train.optimizer.ema_memory)
        step = sharding.compile_train_step(self.setup.step, state, mesh, self.setup.frozen_params)
        batch = jax.eval_shape(lambda: synthetic_example(config, config.train.batch_size))
        key = jax.eval_shape(lambda: jax.random.key(0))
        compiled = compile_program(step, state, batch, key, *self.setup.frozen_params, **settings)
        return dataclasses.replace(compiled, flops=compiled.flops // mesh.size)

    def program(self, compiled: Compiled) -> Program:
        """With the state and a batch, which take their memory from here on."""
        config, mesh = self.config, self.mesh
        key = sharding.replicate(jax.random.key(config.seed), mesh)
        frozen = sharding.replicate(self.setup.frozen_params, mesh)
        batch = sharding.shard_batch(synthetic_example(config, config.train.batch_size), mesh)
        # Donated in every step.
        held = [sharding.initialize(self.init, key, mesh, config.train.optimizer.ema_memory)]

        def start() -> Any:
            held[0], metrics = compiled.call(held[0], batch, key, *frozen)
            return metrics

        return Program(compiled, start)


def matrix_products(a: Array) -> Array:
    """Products of square matrices one after the other: what a device can do."""
    return jax.lax.fori_loop(0, PRODUCTS, lambda _, b: a @ b, a)


def matrix(dtype: str, side: int | None = None) -> Array:
    """A random one, whose powers neither grow nor vanish; by default large enough for the device."""
    side = side or PRODUCT_SIDE.get(jax.default_backend(), PRODUCT_SIDE_ACCELERATOR)
    return (jax.random.uniform(jax.random.key(0), (side, side), minval=-1) * (3 / side) ** 0.5).astype(dtype)


def compile_quickly(function: Callable, *arguments: Any) -> Any:
    """The result of a function that runs once; on a CPU, compiling it well would take longer than running it."""
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options)(*arguments)
