#!/usr/bin/env bash
# A Slurm of one node, this machine, for a test: `slurm.sh start FOLDER` and `slurm.sh stop FOLDER`. Needs root,
# and Debian's slurm-wlm and munge. It listens on the loopback only and keeps everything in FOLDER.
set -euo pipefail
folder=$2 host=$(hostname -s) port=$((20000 + $$ % 20000))
export SLURM_CONF=$folder/slurm.conf
if [ "$1" = stop ]; then
    for name in slurmd slurmctld munged; do
        [ ! -s "$folder/$name.pid" ] || kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    done
    exit
fi

mkdir "$folder"/{state,spool,munge}
head -c 1024 /dev/urandom >"$folder/munge/key" && touch "$folder/munged.pid"
chmod 711 "$folder" && chmod 400 "$folder/munge/key" && chmod 755 "$folder/munge"
chown -R munge: "$folder/munge" "$folder/munged.pid"
runuser -u munge -- munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
cat >"$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthInfo=socket=$folder/munge/socket
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(env -u OMP_NUM_THREADS nproc) State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES State=UP
END
slurmctld -L "$folder/slurmctld.log" && slurmd -L "$folder/slurmd.log"
for _ in {1..100}; do
    [ "$(sinfo --noheader --format=%t 2>/dev/null)" != idle ] || exit 0
    sleep 0.2
done
tail -n 5 "$folder"/slurm*.log >&2 && exit 1
