#!/usr/bin/env bash
# Installs the programs of others that the tests ask (tests/peers.txt) on Debian or Ubuntu, then the parts from npm.
set -euo pipefail
cd "$(dirname "$0")"
export DEBIAN_FRONTEND=noninteractive

# A program that is there already, from wherever, needs no package; a package without programs is asked for by name.
here() {
  local package=$1 program
  shift
  (($#)) || { dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii'; return; }
  for program in "$@"; do
    PATH="$PATH:/usr/sbin:$(printf '%s:' /usr/lib/postgresql/*/bin)" command -v "$program" >/dev/null || return 1
  done
}

missing=()
while read -r package programs; do
  [[ -z $package || $package == \#* ]] && continue
  # shellcheck disable=SC2086 - a list of words
  here "$package" $programs || missing+=("$package")
done <peers.txt

if ((${#missing[@]})); then
  command -v apt-get >/dev/null || { echo "This is no Debian; install by hand: ${missing[*]}" >&2; exit 1; }
  administrator=()
  ((EUID == 0)) || administrator=(sudo)
  "${administrator[@]}" apt-get update -qq
  "${administrator[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
  # Debian starts these at installation; the tests start their own on loopback.
  for service in orthanc redis-server postgresql prometheus; do
    [[ " ${missing[*]} " != *" $service "* ]] || "${administrator[@]}" service "$service" stop >/dev/null 2>&1 || true
  done
fi

viewers/install.sh
inference/install.sh
for folder in browser helm node/openid workers/fhir; do
  (cd "$folder" && npm ci --no-audit --no-fund --ignore-scripts)
done
