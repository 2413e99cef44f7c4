"""Checkpoints: `<workdir>/checkpoints/<step>/{params,opt_state,ema,frozen,config,data}`, locally or on `gs://`.

`frozen` holds the parameters that are not trained, of models that have such; `data` says what was trained on
(`trained_on.History`), checkpoints of earlier versions have none.

An imported one (`dfm_jax.interop.torch_checkpoint`) has no `opt_state`, so that no run resumes from it, and may have
`leftovers`: arrays by the names of where it came from, which `export` writes again.

Saving is asynchronous and atomic: a directory named by a step is complete, whatever killed the run. One that has been
damaged since is found by its checksums (`checksums.py`; object stores have their own), and the one before is used.
Arrays are restored against an abstract target, so that the devices need not be those of the run that saved them.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from dfm_jax.config import Config
from dfm_jax.errors import UserError
from dfm_jax.runs import barriers, checkpoint_files, checksums, packed
from dfm_jax.runs.compatibility import check_same_parameters, complete
from dfm_jax.runs.output_folders import cure_of
from dfm_jax.runs.retention import Retention
from dfm_jax.runs.train_state import Params, TrainState, split_frozen, with_frozen
from dfm_jax.runs.trained_on import History
from dfm_jax.runs.workdirs import is_remote, shipped_model

TREES = ("params", "opt_state", "ema", "frozen", "leftovers")


class Checkpoints:
    """The checkpoints of a workdir; a context manager, which waits for the last save to end."""

    def __init__(self, workdir: str | pathlib.Path, *, keep: Retention | None = None, alone: bool = False):
        """Opens the directory. With `keep` it is made and tidied for writing.

        Args:
          alone: this process reads or writes by itself; else all processes of the run do so together.

        Raises:
          UserError: the directory cannot be written, or holds checkpoints of which none can be read.
        """
        self.directory = checkpoint_files.directory_of(workdir)
        self._keep, self._saving = keep, None
        if keep is not None:
            checkpoint_files.make_writable(self.directory)
            tidy = functools.partial(checkpoint_files.set_aside_damaged, self.directory)
            tidy() if alone else barriers.from_first(tidy)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if keep is None else keep.policy(),
            best_fn=keep.merit if keep is not None and keep.best else None,
            cleanup_tmp_directories=keep is not None,
            create=False,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._add_checksums),
            multiprocessing_options=_processes(alone),
        )
        # Known handlers make an item's shapes readable before the item.
        handlers = {name: ocp.StandardCheckpointHandler() for name in TREES}
        handlers |= {name: ocp.JsonCheckpointHandler() for name in ("config", "data")}
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            with self._writing():
                self._manager.close()
        except UserError:
            if kind is None:  # what ended the run is what the user must know
                raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What goes wrong in the background is raised by the next call."""
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split())
            reason = reason if len(reason) < 300 else f"{reason[:100]} ... {reason[-200:]}"  # the cause comes last
            last = max(checkpoint_files.steps(self.directory), default=0) if self.directory.exists() else 0
            raise UserError(
                f"the checkpoint of step {self._saving} could not be written to {self.directory} ({reason}): "
                f"{cure_of(error)}; it will resume from step {last}"
            ) from error

    def _add_checksums(self) -> None:
        """Called when all files of a checkpoint are there, before it becomes complete."""
        if jax.process_index() == 0 and not is_remote(self.directory):
            (folder,) = self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp*")
            checksums.write(folder)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def resume_step(self) -> int:
        """The step to resume from; 0 if nothing is saved.

        Raises:
          UserError: if the checkpoint is an imported one.
        """
        step = self.latest_step()
        if step is not None and not self.has(step, "opt_state"):
            raise UserError(
                f"{self.directory / str(step)} was imported and has no state of an optimiser: train in another "
                f"--workdir, with --config.init_from={self.directory.parent}"
            )
        return step or 0

    def save(
        self,
        step: int,
        state: TrainState,
        config: Config,
        metrics: Mapping[str, float] | None = None,
        data: History = (),
    ) -> None:
        """Begins to save the state after `step` steps, which may be donated at once; nothing to do if it is saved.

        Args:
          metrics: numbers that `Retention.best` may name.
          data: what was trained on; empty: it is not said.

        Raises:
          UserError: it, or the one before, cannot be written; `best` names no metric.
        """
        if step != self.latest_step():
            trees = {"params": state.params, "opt_state": state.opt_state, "ema": state.ema}
            trees |= {"frozen": state.frozen} if state.frozen else {}
            self.save_trees(step, config, metrics, data, **trees)

    def save_trees(
        self,
        step: int,
        config: Config,
        metrics: Mapping[str, float] | None = None,
        data: History = (),
        **trees: Params,
    ) -> None:
        """Begins to save those of the trees `TREES` that are given, with the settings they belong to."""
        best = self._keep.best if self._keep else ""
        self.check_best(metrics or {})
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        items["config"] = ocp.args.JsonSave(dataclasses.asdict(config))
        if data:
            items["data"] = ocp.args.JsonSave({"history": list(data)})
        with self._writing():
            self._manager.wait_until_finished()  # its errors are those of the last step
            self._saving = step
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics if best else None)

    def wait(self) -> None:
        """Until the last save is complete; raises UserError if it went wrong."""
        with self._writing():
            self._manager.wait_until_finished()

    def check_best(self, metrics: Iterable[str]) -> None:
        """Makes sure that what `Retention.best` names is among the metrics.

        Raises:
          UserError: it is not.
        """
        best = self._keep.best if self._keep else ""
        if best and best not in metrics:
            raise UserError(f"config.train.keep_best={best!r} is no metric; there are: {', '.join(sorted(metrics))}")

    def check(self) -> None:
        """Raises UserError if the last save went wrong; does not wait for it."""
        with self._writing():
            self._manager.check_for_errors()

    def has(self, step: int, item: str) -> bool:
        return (self.directory / str(step) / item).is_dir()

    def config(self, step: int) -> dict[str, Any]:
        """The settings of the run that saved it, as a nested dict; an older run's with those that it could not make."""
        return complete(self._manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))["config"])

    def trained_on(self, step: int) -> History:
        """What the run was trained on; empty where the checkpoint does not say."""
        if not self.has(step, "data"):
            return ()
        return self._manager.restore(step, args=ocp.args.Composite(data=ocp.args.JsonRestore()))["data"]["history"]

    def shapes(self, step: int, item: str) -> Params:
        """What a saved item holds: a tree of things with `shape` and `dtype`."""
        # Not the manager's `item_metadata`, which reads that of all items: one that is damaged would hide the others.
        return ocp.StandardCheckpointHandler().metadata(epath.Path(self.directory) / str(step) / item).tree

    def restore_item(self, step: int, item: str, target: Params) -> Params:
        """One item, placed as the target (ShapeDtypeStructs with shardings) says.

        Raises:
          UserError: listing the arrays that are missing, unexpected or of another shape.
        """
        check_same_parameters(self.shapes(step, item), target, f"{self.directory}/{step}/{item}")
        return self._manager.restore(step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(target)}))[item]

    def restore_model(self, step: int, which: str, target: Params | None) -> Params:
        """All parameters that the model takes, those that are trained as the item `which` has them.

        Args:
          target: as in `restore_params`.

        Raises:
          UserError: as `restore_item`.
        """
        frozen = self.shapes(step, "frozen") if self.has(step, "frozen") else {}
        if target is None:
            target = _on_first_device(with_frozen(self.shapes(step, which), frozen))
        targets = dict(zip((which, "frozen"), split_frozen(target, frozen), strict=True))
        parts = [self.restore_item(step, name, part) for name, part in targets.items() if name != "frozen" or part]
        return with_frozen(parts[0], parts[1]) if frozen else parts[0]

    def restore(self, step: int, target: TrainState) -> TrainState:
        """The whole state, placed as the target says.

        Raises:
          UserError: as `restore_item`.
        """
        names = ("params", "opt_state", "ema", *(("frozen",) if target.frozen else ()))
        items = {name: self.restore_item(step, name, getattr(target, name)) for name in names}
        return TrainState(step=jax.device_put(jnp.int32(step), target.step.sharding), **items)


def restore_params(
    workdir: str | pathlib.Path, which: str = "ema", target: Params | None = None
) -> tuple[Params, int, dict[str, Any]]:
    """The latest parameters of a workdir (or of a model that comes with the package, see `workdirs`), with their step
    and the settings of the run, as a nested dict.

    Args:
      which: 'ema' (the average) or 'params'.
      target: ShapeDtypeStructs with shardings, for all processes of a run together; None: whatever is saved, on the
        first device of this process, for it alone.

    Raises:
      UserError: if there is no checkpoint, or its parameters are not the target's (all differences are listed).
    """
    if file := shipped_model(workdir):
        params, step, settings = packed.read(file)
        if target is not None:
            check_same_parameters(params, target, str(file))
        placed = _on_first_device(params) if target is None else target
        return jax.device_put(params, jax.tree.map(lambda x: x.sharding, placed)), step, settings
    step = checkpoint_files.newest_whole(workdir, (which, "frozen", "config"))
    with Checkpoints(workdir, alone=target is None) as checkpoints:
        return checkpoints.restore_model(step, which, target), step, checkpoints.config(step)


def _processes(alone: bool) -> ocp.options.MultiprocessingOptions:
    """Which processes of the run read and write together: all, or this one `alone`."""
    if not alone or jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
    )


def _on_first_device(tree: Params) -> Params:
    """ShapeDtypeStructs of a tree's arrays, all on the first device."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def restore_leftovers(workdir: str | pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """What an import kept beside the parameters (see above), of any dtype; nothing, for other checkpoints."""
    with Checkpoints(workdir) as checkpoints:
        if not checkpoints.has(step, "leftovers"):
            return {}
        saved = checkpoints.shapes(step, "leftovers")
        target = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved)
        return checkpoints.restore_item(step, "leftovers", target)
