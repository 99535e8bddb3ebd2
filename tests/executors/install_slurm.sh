#!/usr/bin/env bash
# Installs what the tests of the Slurm executor need from Debian's or Ubuntu's packages. Needs root; starts nothing.
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
type slurmctld slurmd munged sbatch &>/dev/null && exit
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends slurmctld slurmd slurm-client munge
