"""Sampling on all devices of this process: scenes over the axis 'data', the rays of one scene over the axis 'rays'.

Each device runs the program of a single one on its part, so that samples do not depend on their number.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dfm_jax.forward_models.protocol import ForwardModel, Params

DATA, RAYS = "data", "rays"


def make_mesh(num_scenes: int, num_rays: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """As many devices along 'data' as there are scenes to sample, the others along 'rays'; both divide what they split,
    so that some devices may be left out."""
    devices = jax.local_devices() if devices is None else devices
    data = max(n for n in range(1, len(devices) + 1) if len(devices) % n == 0 and n <= num_scenes)
    rays = max(n for n in range(1, len(devices) // data + 1) if num_rays % n == 0)
    chosen = np.array(devices[: data * rays]).reshape(data, rays)
    return Mesh(chosen, (DATA, RAYS), axis_types=(AxisType.Auto,) * 2)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """A copy on every device of the mesh; where it is one device, the tree itself."""
    return tree if mesh.size == 1 else jax.device_put(tree, NamedSharding(mesh, P()))


@functools.cache  # compiled once for all calls
def over_scenes(program: Callable, mesh: Mesh | None) -> Callable:
    """`program(sampler, example, key, scene_index, sample_index)`, which is compiled, on the mesh: indices [b] and all
    results are split along their first axis, the rest is whole on all devices, and rays are split by the model."""
    if mesh is None or mesh.size == 1:
        return program

    def part(sampler: Any, *arguments: Any) -> Any:
        return program(sampler.replace(model=split_rays(sampler.model, mesh.shape[RAYS])), *arguments)

    return _compiled(part, mesh, (P(),) * 3 + (P(DATA),) * 2, P(DATA))


@functools.cache
def over_cameras(program: Callable, mesh: Mesh | None, **settings: Any) -> Callable:
    """`program(sampler, scene, camera, **settings)`, which is compiled, on the mesh, as a function of arrays: cameras
    [b, k] and results are split along `k`."""
    program = functools.partial(program, **settings)
    if mesh is None or mesh.size == 1:
        return program
    split = P(None, (DATA, RAYS))
    return _compiled(program, mesh, (P(), P(), split), split)


def _compiled(body: Callable, mesh: Mesh, arguments: tuple, results: P) -> Callable:
    return jax.jit(jax.shard_map(body, mesh=mesh, in_specs=arguments, out_specs=results, check_vma=False))


def split_rays(model: ForwardModel, parts: int) -> ForwardModel:
    """The model, in a program of which each device along 'rays' renders one of `parts` parts of the target's rays."""
    return model if parts == 1 else SplitRays(model, parts)


@dataclasses.dataclass(frozen=True)
class SplitRays:
    """A model of which each device observes a part of the target, a query of rays; all else is the model's."""

    model: ForwardModel
    parts: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def target(self, example: Any) -> tuple[Array, Any]:
        x0, query = self.model.target(example)
        size = jax.tree.leaves(query)[0].shape[1] // self.parts
        first = jax.lax.axis_index(RAYS) * size
        return x0, jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, size, axis=1), query)

    def observe(self, params: Params, signal: Any, query: Any, keys: Array | None = None) -> Any:
        observation = self.model.observe(params, signal, query, keys)
        return jax.tree.map(lambda x: jax.lax.all_gather(x, RAYS, axis=1, tiled=True), observation)
