"""Whether a process joins others: decided in made-up environments of launchers, and two processes that do."""

import contextlib
import http.server
import json
import pathlib
import socket
import threading

import pytest

from dfm_jax.errors import UserError
from dfm_jax.runs import cluster
from dfm_jax.runs.cluster import ProcessSpec, find, resolve
from tests.programs import Command, run_command
from tests.programs import environment as environment_of_tests

ROOT = pathlib.Path(__file__).resolve().parents[1]

# As the launchers set them, with what else of theirs could mislead.
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
OPEN_MPI_4 = OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
OPEN_MPI_5 = OPEN_MPI | {"PMIX_NAMESPACE": "prterun-node0-1234@1"}
# A batch script knows the job's tasks and is none of them; srun adds the step.
BATCH = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
STEP = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_PROCID": "5"}
GKE = {"TPU_WORKER_HOSTNAMES": "dfm-0.dfm,dfm-1.dfm,dfm-2.dfm,dfm-3.dfm", "TPU_WORKER_ID": "2"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"}
WITHOUT_TPU = {"TPU_SKIP_MDS_QUERY": "1"}  # as jax says on a machine without one

ENVIRONMENTS = {
    "a laptop": ({}, None),
    "mpirun of Open MPI 4": (OPEN_MPI_4, ProcessSpec("Open MPI", 4, 3, None, 1)),
    "mpirun of Open MPI 5 on two hosts": (OPEN_MPI_5, ProcessSpec("Open MPI", 4, 3, None, 1)),
    "mpirun, and devices chosen": (OPEN_MPI_4 | {"JAX_LOCAL_DEVICE_IDS": "0"}, ProcessSpec("Open MPI", 4, 3)),
    "mpirun -n 1": (OPEN_MPI_4 | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, None),
    "mpirun started by srun": (BATCH | STEP | OPEN_MPI_4, ProcessSpec("Open MPI", 4, 3, None, 1)),
    "mpirun -n 1 started by srun": (BATCH | STEP | OPEN_MPI_4 | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
    "srun": (BATCH | STEP, ProcessSpec("SLURM", 8, 5)),
    "srun -n 1": (BATCH | STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
    "a batch script of SLURM": (BATCH, None),
    "an interactive shell of SLURM": (BATCH | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NODELIST": "node1"}, None),
    "a shell of salloc": ({"SLURM_JOB_ID": "17", "SLURM_NTASKS": "8"}, None),
    "Kubernetes Engine": (POD | GKE, ProcessSpec("Cloud TPU", 4)),
    "Kubernetes Engine, newer": (POD | {"TPU_PROCESS_ADDRESSES": "a:8476,b:8476"}, ProcessSpec("Cloud TPU", 2)),
    "one host of Kubernetes Engine": (POD | {"TPU_WORKER_HOSTNAMES": "localhost"}, None),
    "one host each in two slices": (
        {"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"},
        ProcessSpec("Cloud TPU", 2),
    ),
    "a TPU slice, on the CPU": (GKE | {"JAX_PLATFORMS": "cpu"}, None),
    "a TPU slice, any platform": (GKE | {"JAX_PLATFORMS": ""}, ProcessSpec("Cloud TPU", 4)),
    "an indexed job of Kubernetes": (POD, ProcessSpec("Kubernetes", None, 2)),
    "a pod of no indexed job": ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
}


@pytest.mark.parametrize("where", ENVIRONMENTS)
def test_the_launcher_tells_whether_there_are_others(where):
    environment, spec = ENVIRONMENTS[where]
    assert find(WITHOUT_TPU | environment) == spec


def test_open_mpi_5_on_one_host_needs_no_address():
    ours = [
        find(OPEN_MPI_5 | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": str(i)}) for i in range(4)
    ]
    assert [spec.local_device for spec in ours] == [0, 1, 2, 3]
    (address,) = {spec.coordinator for spec in ours}
    host, port = address.split(":")
    assert host == "localhost" and int(port) in cluster.PORTS


def test_a_variable_that_is_no_number_is_named():
    with pytest.raises(UserError, match="SLURM_STEP_NUM_TASKS='many', which is no number"):
        find(STEP | {"SLURM_STEP_NUM_TASKS": "many"})


# --- a machine in Google's cloud --------------------------------------------------------------------------------------


@contextlib.contextmanager
def metadata_server(**attributes):
    """Stands for the one that a Cloud TPU machine asks; yields its address and the list of what was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/computeMetadata/v1/instance/attributes/").replace("-", "_")
            asked.append(name)
            known = name in attributes and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(attributes.get(name, "").encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"localhost:{server.server_address[1]}", asked
        server.shutdown()


FOUR_HOSTS = ",".join(f"name{i}:{i}:10.0.0.{i}" for i in range(4))
CLOUD = {
    "a pod": ({"worker_network_endpoints": FOUR_HOSTS}, ProcessSpec("Cloud TPU", 4)),
    "a single host": ({"worker_network_endpoints": "name0:0:10.0.0.1", "tpu_env": "ZONE: 'us-west4-a'"}, None),
    "two slices": (
        {"worker_network_endpoints": FOUR_HOSTS, "tpu_env": "ZONE: 'x'\nMEGASCALE_NUM_SLICES: '2'\n"},
        ProcessSpec("Cloud TPU", 8),
    ),
    "no TPU machine of that cloud": ({}, None),
}


@pytest.mark.parametrize("machine", CLOUD)
def test_a_cloud_tpu_machine_is_asked_what_slice_it_belongs_to(machine, monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: name == "libtpu" or None)
    attributes, spec = CLOUD[machine]
    with metadata_server(**attributes) as (address, asked):
        assert find({"GCE_METADATA_IP": address}) == spec
        assert "worker_network_endpoints" in asked
        asked.clear()
        assert find({"GCE_METADATA_IP": address} | WITHOUT_TPU) is None
        assert find({"GCE_METADATA_IP": address, "JAX_PLATFORMS": "cpu"}) is None
        assert not asked, "nobody is asked where no TPU is used"
    assert find({"GCE_METADATA_IP": address}) is None, "where nobody answers, it goes alone"


# --- flags ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch):
    """The launchers' variables of this process, without those that it was started with."""
    made = dict(WITHOUT_TPU)
    monkeypatch.setattr(cluster.os, "environ", made)
    return made


def test_flags_insist_refuse_and_fill_in(environment):
    assert resolve(None, "", None, None) is None
    assert resolve(True, "", None, None) == ProcessSpec("--distributed")
    assert resolve(None, "host:1", 2, 1) == ProcessSpec("--coordinator", 2, 1, "host:1")
    environment |= BATCH | STEP
    assert resolve(None, "", None, None) == resolve(True, "", None, None) == ProcessSpec("SLURM", 8, 5)
    assert resolve(False, "", None, None) is None
    assert resolve(None, "host:1", None, None) == ProcessSpec("SLURM", 8, 5, "host:1")
    assert resolve(None, "host:1", 2, 0) == ProcessSpec("SLURM", 2, 0, "host:1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, "host:1", None, None), "--coordinator needs --num_processes and --process_id"),
        ((None, "host:1", 2, None), "--coordinator needs --num_processes and --process_id"),
        ((None, "", 2, 0), "need --coordinator=HOST:PORT"),
        ((None, "", None, 0), "need --coordinator=HOST:PORT"),
        ((False, "host:1", 2, 0), "leave one of them out"),
    ],
)
def test_flags_that_contradict_or_do_not_suffice_are_refused(arguments, message, environment):
    with pytest.raises(UserError, match=message):
        resolve(*arguments)


def test_what_cannot_be_joined_is_one_clear_error(environment, monkeypatch):
    # jax has its own reason, another one where an earlier test of this process has started it.
    reasons = "coordinator_address should be defined|must be called before any JAX calls"
    with pytest.raises(UserError, match=rf"cannot join .*({reasons}).*--nodistributed"):
        cluster.initialize(ProcessSpec("--distributed"))
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pod 2 of a Kubernetes job.*jax\[k8s\].*--nodistributed"):
        cluster.initialize(find(POD | WITHOUT_TPU))


def clean_environment(**variables):
    """Of a child process with one device: as this one's, without any launcher's variables but the given ones."""
    known = ("OMPI_", "PMIX_", "SLURM_", "TPU_", "MEGASCALE_", "KUBERNETES_", "JOB_COMPLETION_")
    ours = {name: value for name, value in environment_of_tests(devices=1).items() if not name.startswith(known)}
    return ours | variables


def test_modes_for_one_process_refuse_to_be_one_of_several(tmp_path):
    done = run_command("tests.launched", "modes", env=clean_environment(**BATCH | STEP))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"--mode={mode} is not for one of 8 processes (SLURM): start it once, with --nodistributed"
        for mode in ("view", "benchmark", "compile")
    ]


def test_a_mode_for_one_process_is_refused_with_one_line(tmp_path):
    arguments = [f"--config={ROOT}/configs/toy.py:tiny", "--mode=benchmark"]
    done = run_command("dfm_jax.main", *arguments, cwd=tmp_path, env=clean_environment(**BATCH | STEP))
    assert done.returncode == 1
    assert done.stderr.startswith("error: --mode=benchmark is not for one of 8 processes (SLURM)")
    assert len(done.stderr.splitlines()) == 1


# --- two processes that find each other -------------------------------------------------------------------------------


def free_port(among):
    for port in among:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("localhost", port))
            return port
    raise AssertionError("no port is free")


def open_mpi_4(rank, port):
    # jax makes the port of the job's number.
    job = (port - cluster.PORTS[0]) * 2**12
    return OPEN_MPI | {
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_MCA_orte_hnp_uri": f"{job}.0;tcp://127.0.0.1:1",
    }


def open_mpi_5(rank, port):
    names = (f"prterun-node0-{n}@1" for n in range(10**6))
    namespace = next(name for name in names if cluster.PORTS[cluster.zlib.crc32(name.encode()) % 4096] == port)
    variables = {"SIZE": "2", "RANK": str(rank), "LOCAL_SIZE": "2", "LOCAL_RANK": str(rank)}
    return {f"OMPI_COMM_WORLD_{name}": value for name, value in variables.items()} | {"PMIX_NAMESPACE": namespace}


def slurm(rank, port):
    # jax makes the port of the job's number.
    job = {"SLURM_JOB_ID": str(port - cluster.PORTS[0]), "SLURM_NTASKS": "2", "SLURM_LOCALID": str(rank)}
    return job | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(rank), "SLURM_STEP_NODELIST": "localhost"}


def start_both(command, launcher, cwd):
    port = free_port(cluster.PORTS)
    environments = [clean_environment(**launcher(rank, port)) for rank in range(2)]
    return [Command(*command, cwd=cwd, env=environment) for environment in environments]


def both(command, launcher, cwd):
    """Standard outputs, errors and exit codes of two processes of a launcher."""
    pair = start_both(command, launcher, cwd)
    return [(*process.communicate(), process.returncode) for process in pair]


@pytest.mark.parametrize("launcher", [open_mpi_4, open_mpi_5, slurm])
def test_two_processes_find_each_other_by_what_their_launcher_says(launcher, tmp_path):
    ends = both(["tests.launched", "join"], launcher, tmp_path)
    for rank, (out, errors, code) in enumerate(ends):
        assert code == 0, errors
        assert json.loads(out.splitlines()[-1]) == [rank, 2, 2, [[0, 0], [3_000_000, 3_000_000]]]
    name = "SLURM" if launcher is slurm else "Open MPI"
    assert f"joined: 2 processes ({name})" in ends[0][1]


def test_a_process_with_an_error_tells_it_and_does_not_wait_for_the_others(tmp_path):
    other, failing = start_both(["tests.launched", "fail", "1"], slurm, tmp_path)
    _, errors = failing.communicate(timeout=200)  # jax itself would wait for 300 seconds, and crash then
    assert (failing.returncode, errors.splitlines()[-1]) == (1, "error: shard 1 is gone")
    other.kill()
    other.communicate()


def test_processes_that_fail_alike_all_tell_it(tmp_path):
    for rank, (_, errors, code) in enumerate(both(["tests.launched", "fail", "both"], slurm, tmp_path)):
        # jax may add lines of its own.
        assert code == 1 and f"error: shard {rank} is gone" in errors.splitlines(), errors


@pytest.mark.slow
def test_the_program_trains_in_two_processes_of_mpirun_without_being_told(tmp_path):
    overrides = {"train.num_steps": 2, "train.batch_size": 2, "data.dir": tmp_path / "data", "data.toy_scenes": 16}
    settings = [f"--config.{name}={value}" for name, value in overrides.items()]
    command = [
        "dfm_jax.main",
        f"--config={ROOT}/configs/toy.py:tiny",
        f"--workdir={tmp_path}/run",
    ]
    ends = both([*command, *settings], open_mpi_4, tmp_path)
    assert [code for *_, code in ends] == [0, 0], ends
    assert "on 2 cpu device(s)" in ends[0][1]
    assert "ended at step 2 of 2" in ends[0][1] and "ended" not in ends[1][1]
