#!/usr/bin/env bash
# A Slurm of one node, this machine, for tests/test_slurm.py: `slurm.sh start FOLDER` and `slurm.sh stop FOLDER`.
# Needs root, and Debian's slurm-wlm and munge. It listens on the loopback only and keeps everything in FOLDER.
set -euo pipefail
folder=$2
export SLURM_CONF=$folder/slurm.conf

if [ "$1" = stop ]; then
    for name in slurmd slurmctld munged; do
        if [ -s "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" 2>/dev/null || true; fi
    done
    exit 0
fi

mkdir -p "$folder"/{state,spool,munge}
head -c 1024 /dev/urandom >"$folder/munge/key"
chmod 400 "$folder/munge/key"
chmod 711 "$folder"
touch "$folder/munged.pid"
chown -R munge: "$folder/munge" "$folder/munged.pid"
chmod 755 "$folder/munge"
runuser -u munge -- munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"

host=$(hostname -s)
port=$((20000 + $$ % 20000))
cat >"$SLURM_CONF" <<EOF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
KillWait=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(env -u OMP_NUM_THREADS nproc) State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
slurmctld
slurmd
for _ in $(seq 100); do
    if [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; then exit 0; fi
    sleep 0.2
done
echo "slurm.sh: the node did not become idle" >&2
tail -n 5 "$folder"/slurm*.log >&2
exit 1
