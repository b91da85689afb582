#!/usr/bin/env bash
# Start a SLURM of this user's own, with two virtual nodes, on the loopback interface only, and print its SLURM_CONF.
#
#   SLURM_CONF=$(tests/slurm/start.sh DIR)      DIR: state, logs and sockets; short, since sockets' paths are
#
# No systemd, no cgroups, no database. Needs root, as slurmd does. Ready in some seconds; stop.sh DIR ends it.
# Exit status 3: this machine cannot (the reason is the last line).
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
home=$(readlink -f "$(mkdir -p "$1" && echo "$1")")
nodes=2 cpus=4 memory=6000

cannot() { echo "SLURM does not start: $*" >&2; exit 3; }

for program in sbatch slurmctld slurmd munged; do
  command -v $program >/dev/null || cannot "there is no $program; tests/slurm/install.sh installs it"
done
[ "$(id -u)" = 0 ] || cannot "slurmd needs root"
host=$(hostname -s)
# Daemons bind to what their host's name resolves to.
address=$(getent ahostsv4 "$host" | awk 'NR == 1 {print $1}')
case $address in
  127.*) ;;
  *) cannot "'$host' resolves to '${address:-nothing}', not to loopback: put '127.0.0.1 $host' first in /etc/hosts" ;;
esac
socket=$home/munge/socket
[ ${#socket} -le 100 ] || cannot "the path $socket is too long for a socket"

free_ports() {  # as many ports in a row as there are daemons
  python3 - "$((nodes + 1))" <<'PYTHON'
import random, socket, sys
count = int(sys.argv[1])
for _ in range(200):
    first = random.randrange(20_000, 30_000)
    try:
        for port in range(first, first + count):
            with socket.socket() as one:
                one.bind(("127.0.0.1", port))
        print(first)
        break
    except OSError:
        continue
else:
    sys.exit("no free ports")
PYTHON
}

mkdir -p "$home"/{munge,etc,state,spool,log,run}
chmod 755 "$home" "$home/munge"
chmod 700 "$home/state"

background() {  # name, command...: in a session of its own, its pid in run/name
  local name=$1
  shift
  setsid "$@" </dev/null >>"$home/log/$name.out" 2>&1 &
  echo $! >"$home/run/$name"
}

(umask 077 && head -c 1024 /dev/urandom >"$home/munge/key")
background munged munged --foreground --key-file="$home/munge/key" --socket="$socket" \
  --pid-file="$home/munge/pid" --seed-file="$home/munge/seed" --log-file="$home/log/munged.log"
for _ in $(seq 50); do
  [ -S "$socket" ] && timeout 2 munge --socket="$socket" --no-input >/dev/null 2>&1 && break
  sleep 0.1
done
[ -S "$socket" ] || cannot "munged: $(tail -n 2 "$home/log/munged.out" "$home/log/munged.log" 2>/dev/null)"

port=$(free_ports)
conf=$home/etc/slurm.conf
{
  cat <<CONF
ClusterName=tests
SlurmctldHost=$host($address)
SlurmctldPort=$port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$socket
CredType=cred/munge
# Loopback only.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
# Neither cgroups nor affinity, MPI or accounting.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool/%n
SlurmctldPidFile=$home/run/slurmctld.own
SlurmdPidFile=$home/run/slurmd-%n.own
SlurmctldLogFile=$home/log/slurmctld.log
SlurmdLogFile=$home/log/slurmd-%n.log
# Jobs start at once.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# Nodes have what they claim, whatever this machine has.
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
MinJobAge=60
PropagateResourceLimits=NONE
CONF
  for node in $(seq $nodes); do
    echo "NodeName=n$node NodeHostname=$host NodeAddr=$address Port=$((port + node)) CPUs=$cpus RealMemory=$memory"
  done
  echo "PartitionName=main Nodes=n[1-$nodes] Default=YES MaxTime=60 State=UP"
} >"$conf"
export SLURM_CONF=$conf
background slurmctld slurmctld -D -f "$conf"
for node in $(seq $nodes); do
  mkdir -p "$home/spool/n$node"
  background "slurmd-n$node" slurmd -D -N "n$node" -f "$conf"
done

for _ in $(seq 150); do
  ready=$(timeout 5 sinfo --noheader --Node --format='%t' 2>/dev/null | grep -cxE 'idle|mix|alloc' || true)
  if [ "$ready" = $nodes ]; then
    echo "$conf"
    exit 0
  fi
  sleep 0.2
done
tail -n 5 "$home"/log/* >&2
"$(dirname "${BASH_SOURCE[0]}")/stop.sh" "$home"
cannot "its nodes did not become idle within 30 s"
