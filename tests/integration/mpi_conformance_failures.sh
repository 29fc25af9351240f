#!/usr/bin/env bash
# When one rank aborts, is killed or exits while the others wait for it: mpirun ends with an error within seconds, and no
# process is left.
#
#   mpi_conformance_failures.sh MPIRUN PATH/TO/mpi_conformance
set -uo pipefail
mpirun=$1 program=$2
failures=0

fail() {
  echo "FAILED: $1"
  failures=$((failures + 1))
}

# ends HOW HOSTS: rank 1 of 4 goes in that way.
ends() {
  local how=$1 hosts=$2 output status start=$SECONDS pid
  output=$(CAIRN_FAKE_HOSTS=$hosts timeout -k 5 30 "$mpirun" --allow-run-as-root --oversubscribe \
    --mca mpi_yield_when_idle 1 -np 4 "$program" "$how" 2>&1)
  status=$?
  # A second passes before rank 1 goes; the rest of the limit is for starting four ranks on a busy machine.
  ((SECONDS - start < 10)) || fail "$how, $hosts hosts: took $((SECONDS - start)) s"
  ((status != 0 && status != 124)) || fail "$how, $hosts hosts: exit status $status"
  (($(grep -c '^pid ' <<<"$output") == 4)) || fail "$how, $hosts hosts: four ranks did not start"
  for pid in $(sed -n 's/^pid //p' <<<"$output"); do
    # mpirun kills them and leaves; the kernel and the new parent need a moment.
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    ! kill -0 "$pid" 2>/dev/null || fail "$how, $hosts hosts: process $pid is left"
  done
  if [[ $how == aborts ]]; then
    ((status == 70)) || fail "Abort(70) ended with $status"
    grep -qE '^cairn: rank 1 \(host [^)]+\): layer 3: out of luck and out of lines$' <<<"$output" ||
      fail "Abort did not print its line"
  fi
  ((failures == 0)) || echo "$output"
}

for hosts in 1 2; do
  for how in aborts is-killed exits; do ends "$how" "$hosts"; done
done
((failures == 0)) || exit 1
echo "every way of ending ends all ranks"
