#!/usr/bin/env bash
# Install SLURM and munge from Debian's packages, where they are not there already. Needs root, or sudo without a password.
# Exit status: 0 all there; 3 this machine cannot install them (the reason is the last line).
set -uo pipefail
PATH=$PATH:/usr/sbin:/sbin

cannot() { echo "SLURM is not installed: $*" >&2; exit 3; }

missing=
for program in sbatch squeue scancel sinfo slurmctld slurmd munged munge; do
  command -v "$program" >/dev/null || missing+=" $program"
done
[ -z "$missing" ] && exit 0

command -v apt-get >/dev/null || cannot "there is no apt-get to install$missing"
root=()
if [ "$(id -u)" != 0 ]; then
  sudo -n true 2>/dev/null || cannot "installing$missing needs root"
  root=(sudo -n)
fi

# The packages start daemons of their own unless they are forbidden to.
policy=/usr/sbin/policy-rc.d made=
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null && "${root[@]}" chmod 755 $policy && made=yes
fi
log=$(mktemp)
trap 'rm -f "$log"; [ -z "$made" ] || "${root[@]}" rm -f $policy' EXIT
install() {
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -o Acquire::Retries=2 "$@" >"$log" 2>&1
}
install update -q || cannot "apt-get update: $(tail -n 1 "$log")"
install install -q -y --no-install-recommends slurm-wlm munge || cannot "apt-get install: $(tail -n 1 "$log")"
