"""Which device holds what, and the one place where the training step is compiled.

The mesh has two axes. The batch is split over both; large parameters (with their optimiser state and average) are split
over 'fsdp' and replicated over 'data'.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dfm_jax.config import MeshConfig
from dfm_jax.errors import UserError
from dfm_jax.models.constraints import constrain_activations

Rules = Sequence[tuple[str, P]]

# The first rule whose expression is found in an array's path ('params/encoder/blocks/mlp/kernel') decides.
PARAMETER_RULES: Rules = (
    (r"/(bias|scale)$", P()),  # vectors (stacked over blocks at most): not worth a gather
    (r"/(conditioning|scene)_field/", P()),  # small, and used anew for every chunk of rays
)
HOST_MEMORY = "pinned_host"
SMALLEST_SPLIT = 2**16  # elements; smaller arrays are replicated


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh ('data', 'fsdp') over all devices of all processes (or the given ones).

    Where they are several slices, joined by a slower network, 'data' runs over the slices and 'fsdp' stays in one: the
    network carries one sum of the gradients a step, and no parameters.

    Raises:
      UserError: if the sizes do not multiply to the number of devices, or 'fsdp' would cross slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": config.data, "fsdp": config.fsdp}
    fixed = [size for size in sizes.values() if size != -1]
    product = int(np.prod(fixed))
    fits = all(size > 0 for size in fixed) and len(devices) % product == 0
    if len(fixed) == 0 or not fits or (len(fixed) == 2 and product != len(devices)):
        raise UserError(
            f"config.train.mesh asks for data={config.data}, fsdp={config.fsdp}, but there are {len(devices)} devices; "
            "the two must multiply to that, and one of them may be -1 (all that are left)"
        )
    shape = [len(devices) // product if size == -1 else size for size in sizes.values()]
    return Mesh(_arrange(shape, devices), tuple(sizes), axis_types=(AxisType.Auto,) * 2)


def _arrange(shape: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices as [data, fsdp], neighbours close together; of several slices, one after the other along 'data'."""
    num_slices = len({getattr(device, "slice_index", 0) for device in devices})
    data, fsdp = shape
    if num_slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if data % num_slices:
        raise UserError(
            f"config.train.mesh asks for data={data}, fsdp={fsdp} on {num_slices} slices: data must be a multiple of "
            "their number, so that parameters are split within a slice"
        )
    return mesh_utils.create_hybrid_device_mesh(
        (data // num_slices, fsdp), (num_slices, 1), devices, allow_split_physical_axes=True
    )


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over all devices."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def check_batch_size(batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Raises UserError unless every micro-batch divides evenly over the devices."""
    if (batch_size // accumulate) % mesh.size:
        raise UserError(
            f"config.train.batch_size / config.train.accumulate = {batch_size // accumulate} scenes cannot be split "
            f"over {mesh.size} devices: choose a multiple"
        )


def shard_batch(example: Any, mesh: Mesh) -> Any:
    """Global arrays [b, ...] from this process's part of the batch, leaves [b / processes, ...]."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), example)


def partition_spec(path: str, shape: Sequence[int], fsdp: int, rules: Rules = PARAMETER_RULES) -> P:
    """How an array of the state is split: by the first rule that matches, else along its largest axis that can be."""
    for expression, spec in rules:
        if re.search(expression, path):
            return spec
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or np.prod(shape) < SMALLEST_SPLIT or not divisible:
        return P()
    split = max(divisible, key=lambda axis: shape[axis])
    return P(*[None] * split, "fsdp")


def state_shardings(state: Any, mesh: Mesh, ema_memory: str = "device") -> Any:
    """A NamedSharding for every array of a state or of its shapes.

    Args:
      ema_memory: 'host' for an average that lies in the memory of the hosts, split as on the devices.
    """

    def sharding(path: tuple, x: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        placed = NamedSharding(mesh, partition_spec(name, x.shape, mesh.shape["fsdp"]))
        on_host = ema_memory == "host" and name.startswith("ema/")
        return placed.with_memory_kind(HOST_MEMORY) if on_host else placed

    return jax.tree_util.tree_map_with_path(sharding, state)


def abstract_state(init: Callable[[Array], Any], mesh: Mesh, ema_memory: str = "device") -> Any:
    """The shapes of what `init(key)` makes, each with its sharding; nothing is computed."""
    shapes = jax.eval_shape(init, jax.random.key(0))
    shardings = state_shardings(shapes, mesh, ema_memory)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def initialize(init: Callable[[Array], Any], key: Array, mesh: Mesh, ema_memory: str = "device") -> Any:
    """`init(key)`, made already sharded: no device ever holds all of it."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(init, mesh, ema_memory))
    # It runs once: on a CPU, compiling it well would take far longer than running it.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    return jax.jit(init, out_shardings=shardings, compiler_options=options)(key)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """A copy of the arrays on every device; all processes must hold the same."""
    return jax.device_put(tree, replicated(mesh))


def to_device_memory(tree: Any) -> Any:
    """Arrays with what lies in a host's memory copied to its devices, split as it was."""
    return jax.device_put(tree, jax.tree.map(lambda x: x.sharding.with_memory_kind("device"), tree))


def local_copy(tree: Any, mesh: Mesh) -> Any:
    """The whole arrays on the first device of this process; to be called by all processes."""
    if mesh.size == 1:
        return tree
    whole = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), whole)


def compile_train_step(step: Callable, state: Any, mesh: Mesh, frozen: tuple = ()) -> Callable:
    """Compiles `step(state, example, key, *frozen) -> (state, metrics)`. The state is donated; metrics are replicated.

    On several devices, each computes all layers of its own examples: parameters that are split are gathered when they
    are used, not the activations.

    Args:
      state: the state or its shapes, with their shardings.
      frozen: what else the step takes, or its shapes: arrays that are replicated, and the same in every step. As
        arguments they are not copied into the program.
    """
    shardings = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(
        step if mesh.size == 1 else _split_by_example(step, mesh),
        in_shardings=(shardings, batch_sharding(mesh), replicated(mesh), *[replicated(mesh)] * len(frozen)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def _split_by_example(step: Callable, mesh: Mesh) -> Callable:
    """The step, with what layers return split along the leading axis: examples, or examples by views."""
    split = batch_sharding(mesh)

    def constrain(x: Array) -> Array:
        whole = x.ndim > 1 and x.shape[0] % mesh.size == 0
        return jax.lax.with_sharding_constraint(x, split) if whole else x

    @functools.wraps(step)
    def constrained_step(*arguments: Any) -> Any:
        with constrain_activations(constrain):
            return step(*arguments)

    return constrained_step
