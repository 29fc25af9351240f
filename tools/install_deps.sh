#!/usr/bin/env bash
# Installs the Debian 12 packages that Cairn builds and runs with, where they are missing.
#
#   tools/install_deps.sh [EXTRA_PACKAGE...]
#
# Quick when everything is there: it asks dpkg and returns without touching the network. Works as root or with sudo.
set -euo pipefail

packages=(
  cmake ninja-build g++ pkg-config ccache git          # the build
  libopenmpi-dev openmpi-bin                           # ranks
  libabsl-dev libyaml-cpp-dev nlohmann-json3-dev       # Status, flags and strings; configs; JSON
  libpcre2-dev libutf8proc-dev                         # the tokenizer's regular expressions and Unicode forms
  libgtest-dev libgmock-dev libbenchmark-dev           # tests and benchmarks
  python3-venv                                         # tools/ alone: bringing a model and reading results
  "$@"
)

if ! command -v dpkg-query >/dev/null; then
  echo "install_deps: this is not a Debian system (no dpkg-query). Install the equivalents of these packages, then build" \
       "with 'cmake --preset release && ninja -C build/release': ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $state == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "install_deps: all ${#packages[@]} packages are installed"
  exit 0
fi

# Through sudo the variable must be named on the command line; a prompt of debconf would wait for ever.
as_root=(env DEBIAN_FRONTEND=noninteractive)
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "install_deps: missing packages, and neither root nor sudo to install them with. Ask an administrator to run:" >&2
    echo "  apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo "${as_root[@]}")
  # Nobody is there to type a password.
  [[ -t 0 ]] || as_root=(sudo -n "${as_root[@]:1}")
fi

echo "install_deps: installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${as_root[@]}" apt-get update -q &&
       "${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
  tail -n 20 "$log" >&2
  echo "install_deps: apt-get could not install ${missing[*]} (its last words are above)" >&2
  exit 1
fi
