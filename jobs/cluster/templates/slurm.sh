#!/usr/bin/env bash
# A Ray cluster for the length of one Slurm job, and one command on it. From the checkout, which every node sees:
#
#     python -m pipeline configure scale=paper cluster=gpus cluster.train_workers=16
#     sbatch --nodes=4 jobs/cluster/templates/slurm.sh dvc exp run
#
# A job that Slurm preempts, or whose time is up, saves a checkpoint and is queued again; the same command goes on from
# there. Edit these options, or pass them to sbatch.
#SBATCH --job-name=inpaint-foundry
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log

set -euo pipefail
set -m # a process group for everything that is started below, so that Ctrl-C can be sent to it
(($#)) || { echo "usage: sbatch jobs/cluster/templates/slurm.sh COMMAND..." >&2; exit 2; }
cd "$SLURM_SUBMIT_DIR"
# shellcheck disable=SC1091
source .venv/bin/activate

# Only this job's processes know the token; Slurm hands the environment to every node.
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_health_check_timeout_ms=5000 RAY_health_check_failure_threshold=3 # a lost node is noticed in half a minute
address=$(python -c "import ray; print(ray.util.get_node_ip_address())")
port=$((20000 + SLURM_JOB_ID % 6000 * 2)) # this port and the next one; another job on this node has others
export RAY_ADDRESS=$address:$port

# Start the head on this node, the first of the job, and a Ray node on each of the others.
ray start --block --head --node-ip-address="$address" --port="$port" --ray-client-server-port="$((port + 1))" \
  --num-cpus="$SLURM_CPUS_ON_NODE" --include-dashboard=false &
started=("$!")
until ray status >/dev/null 2>&1; do
  kill -0 "${started[0]}" || exit 1
  sleep 1
done
if ((SLURM_JOB_NUM_NODES > 1)); then
  others=$((SLURM_JOB_NUM_NODES - 1))
  # shellcheck disable=SC2016
  # Without --cpus-per-task, srun binds a task to one core: it takes no such option from sbatch.
  srun --nodes="$others" --ntasks="$others" --cpus-per-task="$SLURM_CPUS_ON_NODE" --exclude="$SLURMD_NODENAME" --kill-on-bad-exit=0 \
    bash -c 'exec ray start --block --address="$RAY_ADDRESS" --num-cpus="$SLURM_CPUS_ON_NODE"' &
  started+=("$!")
fi
trap 'kill -TERM "${started[@]}" 2>/dev/null || true' EXIT

# Run the command. When this script gets SIGTERM, the command gets Ctrl-C: DVC leaves it to its stage, which saves.
stopped='' command=''
interrupt() { if [[ $stopped && $command ]]; then kill -INT -- "-$command" 2>/dev/null || true; fi; }
trap 'stopped=1 interrupted=1; interrupt' TERM
"$@" &
command=$!
interrupt # SIGTERM may have come before
code=0
until
  interrupted=''
  wait "$command" && code=0 || code=$?
  [[ -z $interrupted ]] # otherwise the signal has ended the wait, not the command
do :; done

# 75: saved, and resumable. A job that was cancelled is no longer in state RUNNING and is not queued again.
if ((code)) && [[ $stopped || $code == 75 ]] &&
  [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) == RUNNING ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
