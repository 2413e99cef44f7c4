"""Who converts the shards of a data set: this process, several ones of this machine, or Apache Beam's.

A runner is called with the work, its shards and what to call after each scene, and returns when all are finished. It
needs no results: each shard leaves its own in the folder of the incomplete data set.
"""

import contextlib
import functools
import importlib.util
import multiprocessing
import multiprocessing.connection
import os
import pickle
import shlex
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dfm_jax import interrupts
from dfm_jax.data.preparing import shards
from dfm_jax.data.preparing.shards import Shard, Work
from dfm_jax.errors import UserError
from dfm_jax.runs import log

MEMORY_PER_PROCESS = 4 * 2**30  # bytes; importers may keep the annotations of a whole category
WORK_FILE = "work.pickle"

Runner = Callable[[Work, Sequence[Shard], Callable[[], None]], None]


def in_processes(num_workers: int | None, work: Work, todo: Sequence[Shard], on_scene: Callable[[], None]) -> None:
    """Converts in that many processes of this machine; 1: in this one. None: as many as are worth while.

    Raises:
      UserError: one of them was killed.
    """
    num_workers = min(num_workers or _worth_while(todo), len(todo))
    if num_workers <= 1:
        for shard in todo:
            shards.convert(work, shard, on_scene)
        return
    context = multiprocessing.get_context("spawn")  # forking breaks libraries that have started threads
    taken = context.Value("q", 0)
    processes: dict[Any, Any] = {}  # by the connection that they report on
    try:
        for _ in range(num_workers):
            reports, reporting = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(work, todo, taken, reporting), daemon=True)
            with interrupts.kept_from_children():  # this process ends them
                process.start()
            reporting.close()  # the process has its own; so this one's ends with it
            processes[reports] = process
        running = dict(processes)
        while running:
            for reports in multiprocessing.connection.wait(list(running)):
                if _hear(reports, running[reports], on_scene):
                    del running[reports]
    finally:
        for process in processes.values():
            process.terminate()
            process.join()


def _worth_while(todo: Sequence[Shard]) -> int:
    """A process a core, if there is memory and enough to do: starting one takes seconds."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    scenes = sum(len(shard.names) for shard in todo)
    return max(1, min(cores, memory // MEMORY_PER_PROCESS, scenes // shards.SCENES_PER_SHARD))


# Reports of a converting process: a scene was tried; nothing is left to take; or an exception.
_SCENE, _DONE = "scene", "done"


def _work(work: Work, todo: Sequence[Shard], taken: Any, reporting: Any) -> None:
    """Converts one shard after the other. If the first process is killed, this one fails at its next report: before it
    could finish a shard that another run may have begun anew."""
    log.to_terminal()
    try:
        while (number := _take(taken)) < len(todo):
            shards.convert(work, todo[number], on_scene=lambda: reporting.send(_SCENE))
        reporting.send(_DONE)
    except Exception as error:
        if not isinstance(error, UserError | OSError):
            error.add_note(traceback.format_exc())
        with contextlib.suppress(OSError):
            reporting.send(error)


def _take(taken: Any) -> int:
    with taken.get_lock():
        number = taken.value
        taken.value += 1
    return number


def _hear(reports: Any, process: Any, on_scene: Callable[[], None]) -> bool:
    """Takes one report; whether it was the last of its process."""
    try:
        report = reports.recv()
    except EOFError as error:
        process.join()
        raise UserError(
            f"a converting process was killed (exit code {process.exitcode}), perhaps for want of memory; the same "
            "command, with fewer --num_workers, resumes here"
        ) from error
    if isinstance(report, Exception):
        raise report
    if report == _SCENE:
        on_scene()
    return report == _DONE


def on_beam(runner: str, options: str, work: Work, todo: Sequence[Shard], on_scene: Callable[[], None]) -> None:
    """Converts on an Apache Beam runner, with options as Beam's documentation has them, separated by spaces. All its
    workers must see the source and the data set's folder under the same paths.

    Raises:
      UserError: Beam is not installed, or fails.
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError("--runner needs Apache Beam: pip install 'dfm_jax[beam]'")
    import apache_beam as beam  # an extra, and slow to import
    from apache_beam.options.pipeline_options import PipelineOptions

    path = work.folder / WORK_FILE  # sources that know all their scenes are too large for a job's description
    path.write_bytes(pickle.dumps(work))
    try:
        with beam.Pipeline(runner=runner, options=PipelineOptions(shlex.split(options))) as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(list(todo))
                | "Spread" >> beam.Reshuffle()
                | "Convert" >> beam.Map(functools.partial(_convert, str(path.absolute())))
            )
    except Exception as error:  # Beam's own, of many kinds, with the worker's error as text
        traceback.print_exc()
        last = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"the conversion failed on {runner}: {last[-1]}") from error
    finally:
        path.unlink(missing_ok=True)
    for shard in todo:
        for _ in shard.names:
            on_scene()


_ONE_AT_A_TIME = threading.Lock()  # Beam starts many threads a process; importers know one, and memory is for one


def _convert(work_file: str, shard: Shard) -> None:
    log.to_terminal()
    with _ONE_AT_A_TIME:
        shards.convert(_load_work(work_file), shard)


@functools.lru_cache(maxsize=1)
def _load_work(work_file: str) -> Work:
    return pickle.loads(Path(work_file).read_bytes())
