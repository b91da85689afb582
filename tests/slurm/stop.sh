#!/usr/bin/env bash
# Stop what start.sh DIR started: jobs first, since they outlive slurmd, then the daemons; remove DIR.
set -uo pipefail
PATH=$PATH:/usr/sbin:/sbin
home=$1
[ -d "$home/run" ] || { rm -rf "$home"; exit 0; }
export SLURM_CONF=$home/etc/slurm.conf

runs() {  # pid, program: it is that program and no zombie
  [ -n "$1" ] && awk -v wanted="$2" '/^Name:/ {name = $2} /^State:/ {state = $2} END {exit !(name == wanted && state != "Z")}' \
    "/proc/$1/status" 2>/dev/null
}

if runs "$(cat "$home/run/slurmctld" 2>/dev/null)" slurmctld; then
  jobs=$(timeout 10 squeue --noheader --format=%A | sort -u)
  if [ -n "$jobs" ]; then
    # shellcheck disable=SC2086 # one argument each
    timeout 10 scancel $jobs
    for _ in $(seq 75); do
      [ -z "$(timeout 10 squeue --noheader --format=%A)" ] && break
      sleep 0.2
    done
  fi
fi
for file in "$home"/run/slurmd-n? "$home/run/slurmctld" "$home/run/munged"; do
  name=$(basename "$file") pid=$(cat "$file" 2>/dev/null)
  runs "$pid" "${name%-*}" || continue
  kill -TERM "$pid"
  for _ in $(seq 50); do
    runs "$pid" "${name%-*}" || break
    sleep 0.1
  done
  runs "$pid" "${name%-*}" && kill -KILL "$pid"
done
rm -rf "$home"
