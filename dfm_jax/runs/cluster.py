"""Whether this process is one of several that work together, and how it finds them.

Launchers tell it in the environment: Open MPI, SLURM, Cloud TPU, Kubernetes. What is decided here is whether there are
others; jax finds them. A process that is alone waits for nobody: on a laptop, as the only task of a launcher, in
a batch script or an interactive shell of SLURM without `srun`.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import logging
import os
import sys
import time
import traceback
import urllib.request
import zlib
from collections.abc import Iterator, Mapping

import jax

from dfm_jax import platforms
from dfm_jax.errors import UserError
from dfm_jax.runs.barriers import barrier

logger = logging.getLogger(__name__)

PORTS = range(61440, 65536)  # that a coordinator may take, as in jax's own choice
METADATA_SECONDS = 3  # that a machine in Google's cloud has to say what slice it belongs to

HOW = "give --coordinator=HOST:PORT, --num_processes and --process_id; or --nodistributed, if this process goes alone"


@dataclasses.dataclass(frozen=True)
class ProcessSpec:
    """One process among those of a run. What is None, jax finds out."""

    launcher: str  # who told, for messages
    num_processes: int | None = None  # of the whole run
    process_id: int | None = None  # of this one, from 0
    coordinator: str | None = None  # host:port of process 0
    local_device: int | None = None  # the only GPU that it takes

    def __str__(self) -> str:
        return f"{self.num_processes or 'several'} processes ({self.launcher})"


def resolve(
    distributed: bool | None, coordinator: str, num_processes: int | None, process_id: int | None
) -> ProcessSpec | None:
    """What the flags say and, where they are silent, the environment. None: this process goes alone.

    Args:
      distributed: True: there are others, whatever the environment seems to say; False: there are none.
      coordinator: host:port of process 0; '': not given.
      num_processes: of the whole run; None: as the launcher says.
      process_id: of this one, from 0; None: as the launcher says.

    Raises:
      UserError: the flags contradict each other or are not enough.
    """
    if not coordinator and (num_processes is not None or process_id is not None):
        raise UserError("--num_processes and --process_id need --coordinator=HOST:PORT, that of process 0")
    if distributed is False:
        if coordinator:
            raise UserError("--coordinator joins several processes, --nodistributed does not: leave one of them out")
        return None
    found = find(os.environ)
    if coordinator:
        found = found or ProcessSpec("--coordinator")
        number = found.num_processes if num_processes is None else num_processes
        own = found.process_id if process_id is None else process_id
        if number is None or own is None:
            raise UserError("--coordinator needs --num_processes and --process_id, which no launcher tells here")
        return dataclasses.replace(found, num_processes=number, process_id=own, coordinator=coordinator)
    return found or (ProcessSpec("--distributed") if distributed else None)


def find(environment: Mapping[str, str]) -> ProcessSpec | None:
    """What the launcher of this process tells it; None: there is no launcher, or no other process.

    Raises:
      UserError: a launcher's variable is no number.
    """
    for launcher in (_open_mpi, _slurm, _cloud_tpu, _kubernetes):
        spec = launcher(environment)
        if spec is not None:  # the first that speaks decides: mpirun may itself have been started by SLURM
            return spec if spec.num_processes != 1 else None
    return None


def initialize(spec: ProcessSpec) -> None:
    """Joins this process to the others; to be called before anything else of jax.

    Raises:
      UserError: they cannot be found, or do not come.
    """
    needs_client = spec.launcher == "Kubernetes" and not spec.coordinator
    if needs_client and importlib.util.find_spec("kubernetes") is None:
        raise UserError(
            f"this is pod {spec.process_id} of a Kubernetes job; to find the others, pip install 'jax[k8s]', or {HOW}"
        )
    try:
        jax.distributed.initialize(
            spec.coordinator,
            num_processes=spec.num_processes,
            process_id=None if needs_client else spec.process_id,
            local_device_ids=spec.local_device,
        )
    except Exception as error:  # whatever a cluster's own interface raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot join the other processes of this run ({reason}): {HOW}") from error
    platforms.start()
    logger.info(f"joined: {jax.process_count()} processes ({spec.launcher})")


def initialized(spec: ProcessSpec | None) -> contextlib.AbstractContextManager:
    """Joins this process to the others, if there are any; returns the context to work in."""
    if spec is None:
        return contextlib.nullcontext()
    initialize(spec)
    return exit_on_error()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `dfm_jax.main` that say whether there are other processes, for other commands."""
    several = parser.add_argument_group("several processes (found on TPU pods, SLURM, Open MPI and Kubernetes)")
    several.add_argument("--distributed", action="store_true", default=None, help="it is an error to find no other")
    several.add_argument("--nodistributed", dest="distributed", action="store_false", help="go alone")
    several.add_argument("--coordinator", default="", help="host:port of process 0, where the cluster does not tell")
    several.add_argument("--num_processes", type=int, help="of the run; with --coordinator")
    several.add_argument("--process_id", type=int, help="of this one, from 0; with --coordinator")


def spec_of(arguments: argparse.Namespace) -> ProcessSpec | None:
    """What these flags and the environment say, as `resolve`."""
    return resolve(arguments.distributed, arguments.coordinator, arguments.num_processes, arguments.process_id)


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Within it, an error is told and ends this process with exit code 1, without the others: an orderly end would wait
    minutes for them, which may wait for this one. Those with an error of their own get the time to tell it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError):
            logger.error(f"error: {error}")
        else:
            traceback.print_exc()
        with contextlib.suppress(Exception):
            barrier("after an error", seconds=10)
            if jax.process_index() == 0:
                time.sleep(1)  # it is where the others meet: should it leave first, jax would end them in its own way
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _open_mpi(environment: Mapping[str, str]) -> ProcessSpec | None:
    """`mpirun`. Up to version 4 it tells its address, which jax reads; 5 does not, and none is needed on one host."""
    size = _number(environment, "OMPI_COMM_WORLD_SIZE")
    rank = _number(environment, "OMPI_COMM_WORLD_RANK")
    if size is None or rank is None:
        return None
    # Said here, as jax would otherwise ask SLURM, where that is what started mpirun, once a host.
    local = None if "JAX_LOCAL_DEVICE_IDS" in environment else _number(environment, "OMPI_COMM_WORLD_LOCAL_RANK")
    coordinator, namespace = None, environment.get("PMIX_NAMESPACE")  # the job's name, the same in all its processes
    on_this_host = _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE")
    if "OMPI_MCA_orte_hnp_uri" not in environment and namespace and on_this_host == size:
        coordinator = f"localhost:{PORTS[zlib.crc32(namespace.encode()) % len(PORTS)]}"
    return ProcessSpec("Open MPI", size, rank, coordinator, local)


def _slurm(environment: Mapping[str, str]) -> ProcessSpec | None:
    """`srun`. A batch script and an interactive shell know how many tasks a job may have, but are no step with them."""
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS")
    task = _number(environment, "SLURM_PROCID")
    return None if tasks is None or task is None else ProcessSpec("SLURM", tasks, task)


def _cloud_tpu(environment: Mapping[str, str]) -> ProcessSpec | None:
    """A host of a TPU slice: Kubernetes Engine lists the hosts in the environment, other machines ask."""
    if (environment.get("JAX_PLATFORMS") or "tpu").split(",")[0] != "tpu":
        return None
    hosts = environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES"))
    slices = _number(environment, "MEGASCALE_NUM_SLICES")
    # jax sets TPU_SKIP_MDS_QUERY on machines without TPU chips: there, nobody is asked.
    if hosts is None and "TPU_SKIP_MDS_QUERY" not in environment and importlib.util.find_spec("libtpu") is not None:
        hosts = _ask_cloud(environment, "worker-network-endpoints")
        if slices is None:
            of_slice = _ask_cloud(environment, "tpu-env") or ""
            named = dict(line.split(":", 1) for line in of_slice.splitlines() if ":" in line)
            slices = _number({k: v.strip(" '") for k, v in named.items()}, "MEGASCALE_NUM_SLICES")
    return None if hosts is None else ProcessSpec("Cloud TPU", len(hosts.split(",")) * (slices or 1))


def _ask_cloud(environment: Mapping[str, str], what: str) -> str | None:
    """An attribute of this machine from Google's metadata server; None: it has none, or is not in that cloud."""
    server = environment.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(
        f"http://{server}/computeMetadata/v1/instance/attributes/{what}", headers={"Metadata-Flavor": "Google"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy knows this machine
    try:
        with direct.open(request, timeout=METADATA_SECONDS) as answer:
            return answer.read().decode()
    except OSError:
        return None


def _kubernetes(environment: Mapping[str, str]) -> ProcessSpec | None:
    """A pod of an indexed job; how many there are, the cluster's interface knows."""
    index = _number(environment, "JOB_COMPLETION_INDEX")
    in_cluster = "KUBERNETES_SERVICE_HOST" in environment
    return ProcessSpec("Kubernetes", None, index) if in_cluster and index is not None else None


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """A variable's value; None: it is not set."""
    text = environment.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"the launcher set {name}={text!r}, which is no number; --nodistributed goes alone") from error
