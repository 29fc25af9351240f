#!/bin/sh
# Starts a program of this folder with the folder's own libraries, configs and Open MPI, wherever the folder is:
#   run PROGRAM [ARGUMENT...]     PROGRAM is one of bin/; `cairn` and `mpirun` are links to this file and name themselves
self=$(readlink -f "$0") || exit 127
root=${self%/*}
program=${0##*/}
if [ "$program" = run ]; then
  program=$1
  if [ -z "$program" ] || [ ! -x "$root/bin/$program" ]; then
    echo "run: which program? There are: $(cd "$root/bin" && echo *)" >&2
    exit 64
  fi
  shift
fi

# The folder's libraries, then the caller's, then CUDA's where machines keep it. Ours for fabrics only where the machine
# has none: its drivers go with its own.
libraries=$root/lib
fabric=:$root/lib/fabric
for file in /lib/*/libibverbs.so.1 /usr/lib/*/libibverbs.so.1 /usr/lib64/libibverbs.so.1; do
  [ ! -e "$file" ] || fabric=
done
libraries=$libraries$fabric${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
[ ! -d /usr/local/cuda/lib64 ] || libraries=$libraries:/usr/local/cuda/lib64

export LD_LIBRARY_PATH="$libraries" PATH="$root:${PATH:-/usr/bin:/bin}" CAIRN_CONFIGS_DIR="${CAIRN_CONFIGS_DIR:-$root/configs}"
# Not the machine's plugins of hwloc, which may be of another version; there are none here, and none is needed.
export OPAL_PREFIX="$root" OPAL_SYSCONFDIR="$root/etc/openmpi"
export HWLOC_PLUGINS_PATH="$root/lib/hwloc" PMIX_PKGLIBDIR="$root/lib/pmix" PMIX_PKGDATADIR="$root/share/pmix" PMIX_SYSCONFDIR="$root/etc"
# Open MPI wants a way to other hosts even where it needs none; here there is this host alone.
if [ -z "$SLURM_JOB_ID" ] && ! command -v ssh >/dev/null && ! command -v rsh >/dev/null; then
  export OMPI_MCA_plm="${OMPI_MCA_plm:-isolated}"
fi
exec "$root/bin/$program" "$@"
