#!/usr/bin/env bash
# Run the small workflow on a real SLURM that this script starts on this machine and stops again: make test-slurm.
# Needs Debian's munge, slurmctld and slurmd; without them it says so and ends with 0. All files are temporary.
set -euo pipefail
cd "$(dirname "$0")/../.."

for command in munged slurmctld slurmd sbatch; do
    if ! PATH="$PATH:/usr/sbin" command -v "$command" >/dev/null; then
        echo "SKIPPED: no $command; nothing was tested. On Debian: apt-get install munge slurmctld slurmd slurm-client"
        exit 0
    fi
done
export PATH="$PATH:/usr/sbin"
CLUSTER=$(mktemp -d "${TMPDIR:-/tmp}/segbench-slurm.XXXXXX")
export CLUSTER
# shellcheck source=tests/slurm/cluster.sh
. tests/slurm/cluster.sh
trap 'stop_cluster; [ -n "${KEEP:-}" ] || rm -rf "$CLUSTER"' EXIT

export PYTHONPATH=$PWD
if ! python -c 'import snakemake_executor_plugin_slurm' 2>/dev/null; then
    python -m pip install --quiet --no-deps --target "$CLUSTER/plugin" -r envs/lock-slurm.txt
    export PYTHONPATH=$PWD:$CLUSTER/plugin
fi
# The executor removes SLURM_CONF from the environment of srun, which elsewhere finds its config in /etc.
mkdir -p "$CLUSTER/bin"
printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(command -v srun)" >"$CLUSTER/bin/srun"
chmod +x "$CLUSTER/bin/srun"
export PATH="$CLUSTER/bin:$PATH"
start_cluster
echo "SLURM $(sinfo --version | cut -d' ' -f2) on $(getconf _NPROCESSORS_ONLN) processors; $(python -m snakemake --version) is Snakemake's version"
python -m tests.slurm.scenarios "$CLUSTER" "$@"
