#!/usr/bin/env bash
# A real Slurm of one node, this one, for the tests: `start.sh FOLDER` starts munged, slurmctld and slurmd with all
# their files in FOLDER and prints the SLURM_CONF to use. Nothing outside FOLDER is written but what apt installs.
set -eu
folder=${1:?usage: start.sh FOLDER}

export DEBIAN_FRONTEND=noninteractive PATH=$PATH:/usr/sbin
needed=$(for pair in slurmctld:slurmctld slurmd:slurmd slurm-client:sbatch munge:munged; do
  command -v "${pair#*:}" > /dev/null || echo "${pair%:*}"
done)
if [ -n "$needed" ]; then
  # Debian starts a service when it is installed, which these have no settings for: this says no, for that moment.
  policy=/usr/sbin/usr-sbin-policy-none; [ -e /usr/sbin/policy-rc.d ] || policy=/usr/sbin/policy-rc.d
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod +x "$policy"
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends $needed; } > /dev/null 2>&1 \
    || { echo "Slurm can't be installed: apt-get install $needed" >&2; exit 1; }
fi

mkdir -p "$folder"/{state,spool,log}
chmod 755 "$folder" "$folder"/{state,spool,log}
dd if=/dev/urandom of="$folder/munge.key" bs=64 count=1 status=none
chmod 400 "$folder/munge.key"
host=$(hostname -s)
cat > "$folder/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${SLURM_TEST_PORT:-26817}
SlurmdPort=$((${SLURM_TEST_PORT:-26817} + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=1
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=100000,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# a job of the partition \`urgent\` puts those of \`main\` back into the queue
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=15
MinJobAge=2
OverTimeLimit=0
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE PriorityTier=1 OverSubscribe=NO State=UP
PartitionName=urgent Nodes=$host MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF OverSubscribe=NO State=UP
CONF
export SLURM_CONF=$folder/slurm.conf

munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
  --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed" > "$folder/log/munged.out" 2>&1
slurmctld -c > "$folder/log/slurmctld.out" 2>&1
slurmd > "$folder/log/slurmd.out" 2>&1
for _ in $(seq 100); do
  if [ "$(sinfo -h -p main -o %t 2> /dev/null)" = idle ]; then
    echo "$SLURM_CONF"
    exit 0
  fi
  sleep 0.2
done
echo "Slurm did not come up within 20 s; its logs:" >&2
tail -n 20 "$folder"/log/* >&2
exit 1
