#!/usr/bin/env bash
# tools/bundle: a bundle that was moved runs with an empty environment from another folder, alone and under its own
# mpirun, answers as the build does, and loads nothing of this machine but glibc. Then again in a root that holds glibc,
# a shell and three commands besides, and nothing else.
#
#   bundle_test.sh SOURCE_DIR BUILD_DIR
set -euo pipefail
source=$1 build=$2
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT

fail() { echo "FAILED: $*"; exit 1; }

"$source/tools/bundle" "$root/made" --build "$build"
mkdir "$root/elsewhere"
mv "$root/made" "$root/elsewhere/bundle"
bundle=$root/elsewhere/bundle
mkdir "$root/links"
ln -s "$bundle/cairn" "$root/links/cairn"
cd /

# The version, through a link from outside, and a shape by its name: configs come along.
env -i "$root/links/cairn" --version | grep -q cairn || fail "--version"
env -i "$bundle/cairn" plan --model llama-3.1-8b --load-format dummy --rank-memory-bytes 80GiB | grep -q 'llama-3.1-8b' ||
  fail "plan of a shape of configs/models"

for i in 1 2 3; do
  echo "{\"custom_id\": \"r$i\", \"method\": \"POST\", \"url\": \"/v1/completions\", \"body\": {\"prompt\": [5, $i, 9]," \
    "\"max_tokens\": 8, \"temperature\": 0, \"ignore_eos\": true, \"return_token_ids\": true}}"
done >"$root/in.jsonl"
tokens() { grep -o '"custom_id":"[^"]*"\|"token_ids":\[[^]]*\]' "$1" | paste - - | sort; }

"$build/cairn" run-batch --model "$source/tests/data/checkpoints/llama3" -i "$root/in.jsonl" -o "$root/expected" --quiet
[[ $(tokens "$root/expected" | wc -l) == 3 ]] || fail "the build's own answers"

# Open MPI is the bundle's: the machine's is hidden by an empty PATH, and what is loaded is listed.
launch=(env -i OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
        OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none LD_DEBUG=files
        LD_DEBUG_OUTPUT="$root/loaded" "$bundle/mpirun" -np 2 --bind-to none)
"${launch[@]}" cairn run-batch --model "$bundle/checkpoints/llama3" -tp 2 -i "$root/in.jsonl" -o "$root/answers" \
  --quiet 2>"$root/err" || { cat "$root/err"; fail "run-batch over two ranks"; }
diff <(tokens "$root/expected") <(tokens "$root/answers") || fail "the bundle's answers differ from the build's"

cat "$root"/loaded.* | grep -o 'calling init: .*' | cut -d' ' -f3 | sort -u >"$root/libraries"
grep -q "^$bundle/lib/.*libmpi" "$root/libraries" || fail "libmpi of the bundle was not loaded"
grep -q "^$bundle/.*/mca_" "$root/libraries" || fail "no plugin of the bundle was loaded"
# Of the machine: glibc, what /bin/sh and readlink need before the bundle's libraries are named, and its own fabrics.
glibc='/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv|util|selinux|pcre2-8|acl|attr)\.so[.0-9]*)$'
fabrics='/lib(ibverbs|rdmacm|efa|psm2|psm_infinipath|infinipath|nl-3|nl-route-3)\.so[.0-9]*$|/libibverbs/'
foreign=$(grep -v "^$bundle/" "$root/libraries" | grep -Ev "$glibc" | grep -Ev "$fabrics" || true)
[[ -z $foreign ]] || fail "loaded from outside of the bundle:"$'\n'"$foreign"

# An empty root, in namespaces of its own: what is mounted there ends with them.
empty=$root/empty
mkdir -p "$empty"/{bin,proc,sys,dev/shm,tmp,etc}
for program in sh env readlink mkdir; do
  file=$(readlink -f "$(command -v "$program")")
  cp "$file" "$empty/bin/$program"
  ldd "$file" | grep -o '/[^ ]*' | while read -r library; do cp --parents "$library" "$empty"; done
done
for library in m dl pthread rt util resolv; do
  for file in /lib/x86_64-linux-gnu/lib$library.so.*; do cp --parents "$file" "$empty"; done
done
: >"$empty/dev/null"
echo 'root:x:0:0::/tmp:/bin/sh' >"$empty/etc/passwd"
cp -r "$bundle" "$empty/bundle"
cp "$root/in.jsonl" "$empty/tmp/in.jsonl"
isolate=(unshare --mount --pid --fork)
[[ $EUID == 0 ]] || isolate+=(--map-root-user)
if "${isolate[@]}" true 2>/dev/null; then
  # shellcheck disable=SC2016
  "${isolate[@]}" sh -c 'mount -t proc proc "$1/proc" && mount --rbind /sys "$1/sys" && shift && exec chroot "$@"' - "$empty" "$empty" \
    /bin/env -i OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
    OMPI_MCA_mpi_yield_when_idle=1 /bundle/mpirun -np 4 --bind-to none cairn run-batch \
    --model /bundle/checkpoints/qwen2 -tp 2 -pp 2 -i /tmp/in.jsonl -o /tmp/answers --quiet ||
    fail "run-batch over four ranks in an empty root"
  [[ $(tokens "$empty/tmp/answers" | wc -l) == 3 ]] || fail "answers in the empty root"
else
  echo "not tried in an empty root: namespaces are not allowed here"
fi

# The package of every library has its licence there (one of the packages, where several have a file of that name).
for library in "$bundle"/lib/*.so*; do
  licensed=
  for package in $(dpkg-query -S "*/${library##*/}" | cut -d: -f1 | tr -d ,); do
    [[ ! -s $bundle/licences/$package.txt ]] || licensed=yes
  done
  [[ -n $licensed ]] || fail "no licence of ${library##*/}"
done
# A folder of somebody else's is left alone.
mkdir "$root/precious"
if "$source/tools/bundle" "$root/precious" --build "$build" 2>"$root/err"; then fail "replaced a folder that is no bundle"; fi
grep -q 'is not a bundle' "$root/err" || { cat "$root/err"; fail "the message"; }
echo "the bundle runs"
