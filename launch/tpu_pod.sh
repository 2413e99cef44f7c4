#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it or takes the one that is there, installs this checkout on all of its hosts,
# starts the same command on each, follows the log, and starts again after a preemption.
#
#   launch/tpu_pod.sh --name=dfm --zone=us-west4-a --type=v5litepod-16 -- \
#       --config=configs/co3d.py:128 --config.train.mesh.fsdp=-1 --config.train.mesh.data=1 --workdir=gs://BUCKET/run
#
#   --name=NAME        of the slice
#   --zone=ZONE        where it is, or shall be
#   --type=TYPE        accelerator type, such as v4-32, v5litepod-16, v5p-128, v6e-64
#   --version=VERSION  of the TPU software (default: the usual one of the type)
#   --project=PROJECT  default: that of gcloud
#   --spot             may be preempted, and costs less
#   --dry-run          prints all commands and runs none
#   --                 what follows are options of python -m dfm_jax.main
#
# Needs gcloud, logged in. All hosts must see --workdir and config.data.dir: name a bucket and a mounted disk.
# Exit code: that of the run; 75 (saved, start again) never leaves this script.
set -euo pipefail

RESTART=75
HOME_ON_VM=dfm_jax

name='' zone='' type='' version='' project='' spot='' dry_run=''

fail() { echo "error: $*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --spot) spot=--spot ;;
    --dry-run) dry_run=1 ;;
    --) shift; break ;;
    -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) fail "what is $1? (see --help)" ;;
  esac
  shift
done
for needed in name zone type; do
  [ -n "${!needed}" ] || fail "--$needed is missing (see --help)"
done
[ $# -gt 0 ] || fail "nothing to run: give the options of python -m dfm_jax.main after -- (see --help)"
if [ -z "$version" ]; then
  case "$type" in
    v4-*) version=tpu-ubuntu2204-base ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    *) fail "--version is missing: none is known for --type=$type" ;;
  esac
fi
where=("--zone=$zone")
[ -z "$project" ] || where+=("--project=$project")

# Runs a command, or prints it as it would be typed.
run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

tpu() { run gcloud compute tpus tpu-vm "$@" "${where[@]}" --quiet; }

on_all() { tpu ssh "$name" --worker=all "--command=$1"; }

on_first() { tpu ssh "$name" --worker=0 "--command=$1"; }

# READY, PREEMPTED, ...; nothing where there is no such slice.
state() {
  [ -z "$dry_run" ] || return 0
  gcloud compute tpus tpu-vm describe "$name" "${where[@]}" '--format=value(state)' 2>/dev/null || true
}

create() {
  local now
  now=$(state)
  [ "$now" != READY ] || return 0
  [ -z "$now" ] || tpu delete "$name"
  until tpu create "$name" "--accelerator-type=$type" "--version=$version" ${spot:+"$spot"}; do
    echo "no capacity yet; trying again in a minute" >&2
    sleep 60
  done
}

install() {
  local archive=/tmp/dfm_jax.tar.gz
  run git -C "$(dirname "$0")/.." archive --format=tar.gz "--output=$archive" HEAD
  tpu scp "$archive" "$name:" --worker=all
  on_all "rm -rf $HOME_ON_VM/code && mkdir -p $HOME_ON_VM/code && tar -xzf dfm_jax.tar.gz -C $HOME_ON_VM/code"
  # An older Python than 3.11 may be the system's: uv brings its own.
  on_all "cd $HOME_ON_VM && python3 -m pip install --quiet --user uv && python3 -m uv venv --allow-existing --python=3.12 venv && python3 -m uv pip install --quiet --python=venv/bin/python './code[tpu,gcs]'"
}

# The run outlives the connection that starts it; its exit code is left in a file. --distributed: where the hosts do not
# find each other, that is an error and not a run on each of them.
start() {
  local command
  command="../venv/bin/python -m dfm_jax.main --distributed $(printf '%q ' "$@"); echo \$? > ../exit_code"
  on_all "cd $HOME_ON_VM/code && rm -f ../exit_code && (nohup bash -c $(printf '%q' "$command") > ../log 2>&1 < /dev/null &)"
}

follow() {
  on_first "cd $HOME_ON_VM; tail -n +1 -F log & while [ ! -f exit_code ]; do sleep 1; done; sleep 2; kill \$!"
}

# Of all hosts, the code that says most: a failure before a restart before success.
exit_code() {
  if [ -n "$dry_run" ]; then
    on_all "cat $HOME_ON_VM/exit_code" >&2
    echo 0
    return
  fi
  local codes
  codes=$(on_all "cat $HOME_ON_VM/exit_code" 2>/dev/null) || { echo lost; return; }
  if [ -z "$codes" ]; then echo lost
  elif grep -qvxE "0|$RESTART" <<< "$codes"; then grep -m1 -vxE "0|$RESTART" <<< "$codes"
  elif grep -qx "$RESTART" <<< "$codes"; then echo $RESTART
  else echo 0
  fi
}

while true; do
  create
  install
  start "$@"
  follow || true  # the connection ends with the machine
  code=$(exit_code)
  case "$code" in
    0) exit 0 ;;
    "$RESTART") echo "saved, and to be started again" >&2 ;;
    lost) echo "the slice is gone ($(state)); starting again from the last checkpoint" >&2 ;;
    *)
      # One host that is taken away makes the others fail.
      [ "$(state)" != READY ] || { echo "error: the run failed with exit code $code" >&2; exit "$code"; }
      ;;
  esac
done
