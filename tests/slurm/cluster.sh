# Sourced by run.sh: a SLURM cluster of one real node, with all its files below $CLUSTER. Needs munged, slurmctld, slurmd.
# Two partitions, `cpu` and `gpu`, and two fake devices, which are empty files. No accounting, as on many small clusters.

CLUSTER=${CLUSTER:?the folder of the cluster}
export SLURM_CONF=$CLUSTER/slurm.conf

write_cluster_config() {
    local host user
    host=$(hostname -s)
    user=$(id -un)
    mkdir -p "$CLUSTER"/{state,spool,log,munge}
    chmod 700 "$CLUSTER/munge"
    touch "$CLUSTER/gpu0" "$CLUSTER/gpu1"
    printf 'Name=gpu File=%s/gpu[0-1]\n' "$CLUSTER" >"$CLUSTER/gres.conf"
    cat >"$SLURM_CONF" <<EOF
ClusterName=segbench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$CLUSTER/munge/socket
StateSaveLocation=$CLUSTER/state
SlurmdSpoolDir=$CLUSTER/spool
SlurmctldPidFile=$CLUSTER/slurmctld.pid
SlurmdPidFile=$CLUSTER/slurmd.pid
SlurmctldLogFile=$CLUSTER/log/slurmctld.log
SlurmdLogFile=$CLUSTER/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=2,batch_sched_delay=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
MinJobAge=600
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes=$host Default=YES MaxTime=60 State=UP
PartitionName=gpu Nodes=$host MaxTime=60 State=UP
EOF
}

start_munge() {
    dd if=/dev/urandom of="$CLUSTER/munge/key" bs=1024 count=1 status=none
    chmod 400 "$CLUSTER/munge/key"
    munged --force --socket="$CLUSTER/munge/socket" --key-file="$CLUSTER/munge/key" --pid-file="$CLUSTER/munge/pid" \
        --log-file="$CLUSTER/munge/log" --seed-file="$CLUSTER/munge/seed"
}

start_controller() { slurmctld -f "$SLURM_CONF"; }

start_node() { slurmd -f "$SLURM_CONF" -N "$(hostname -s)"; }

start_cluster() {
    write_cluster_config
    start_munge
    start_controller
    start_node
    local tries
    for tries in $(seq 50); do
        sinfo --noheader --format=%t 2>/dev/null | grep -q idle && return
        sleep 0.2
    done
    echo "the cluster did not start; its logs:" >&2
    tail -n 20 "$CLUSTER"/log/*.log >&2
    return 1
}

stop_process() { [ ! -f "$1" ] || kill "$(cat "$1")" 2>/dev/null || true; }

stop_cluster() {
    scancel --user="$(id -un)" 2>/dev/null || true
    stop_process "$CLUSTER/slurmd.pid"
    stop_process "$CLUSTER/slurmctld.pid"
    stop_process "$CLUSTER/munge/pid"
}
