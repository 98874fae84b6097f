#!/bin/bash
# Installs Debian packages, as root or through sudo; says what to do where it can do neither.
# usage: packages.sh PACKAGE...
set -euo pipefail

die() { echo "packages: $*" >&2; exit 1; }

command -v apt-get >/dev/null || die "this machine has no apt-get: install what matches the Debian packages $* and run again"
as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || die "installing Debian packages needs root: run 'apt-get install -y $*' as root and run again"
  as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@" </dev/null >"$log" 2>&1; }

echo "packages: installing $* (apt-get)" >&2
# The lists may be old or absent; an update that fails in part (a dead third-party source) is no reason to stop.
apt update -qq || { tail -n 3 "$log" >&2; echo "packages: 'apt-get update' failed, trying with the lists at hand" >&2; }
apt install -y -qq --no-install-recommends "$@" || {
  tail -n 5 "$log" >&2
  die "could not install $*: check the network and the sources of apt, or run 'apt-get install -y $*' yourself"
}
