#!/usr/bin/env bash
# Ends what `start.sh FOLDER` started, by the process ids that are noted there; jobs that still run are ended first.
folder=${1:?usage: stop.sh FOLDER}
export SLURM_CONF=$folder/slurm.conf PATH=$PATH:/usr/sbin
scancel --user="$(id -un)" > /dev/null 2>&1
for _ in $(seq 50); do
  [ -z "$(squeue -h 2> /dev/null)" ] && break
  sleep 0.2
done
for name in slurmd slurmctld munged; do
  [ -s "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2> /dev/null
done
for _ in $(seq 50); do
  alive=$(for name in slurmd slurmctld munged; do
    [ -s "$folder/$name.pid" ] && kill -0 "$(cat "$folder/$name.pid")" 2> /dev/null && echo "$name"
  done)
  [ -z "$alive" ] && exit 0
  sleep 0.2
done
echo "still there: $alive" >&2
exit 1
