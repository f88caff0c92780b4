# The engine's own test in several builds: as it is, under the sanitizers, and for ARM under emulation. The fingerprint
# of its results is the same in each.

core_check() { # NAME [make's arguments]...
    local name=$1
    shift
    make -s -C kernels/core BUILD="$work/core-$name" "$@" check >"$work/core-$name.txt" 2>&1 ||
        { tail -50 "$work/core-$name.txt"; return 1; }
    echo "$name: $(tail -1 "$work/core-$name.txt")"
}
fingerprint() { sed -n 's/.*fingerprints //p' "$work/core-$1.txt"; }

# -O2: with checks, -O3 takes long to compile and -O1 several times as long to run; no bit may depend on it.
checked="-std=c11 -O2 -ffp-contract=off -fno-math-errno -fvisibility=hidden -pthread"

step "the engine's own test: native, the sanitizers for addresses and undefined behaviour, for threads, NEON emulated"
# Side by side: a check works on one core for most of its time.
running=() builds=(native asan tsan)
core_check native BUILD="$PWD/build/core" & # which make install takes, too
running+=($!)
core_check asan -j2 CORE_FLAGS="$checked" CFLAGS="-g1 -fsanitize=address,undefined -fno-sanitize-recover=all" \
    LDFLAGS="-fsanitize=address,undefined" CHECK_ARGS=--scalar-once &
running+=($!)
core_check tsan CORE_FLAGS="$checked" CFLAGS="-g1 -fsanitize=thread" LDFLAGS="-fsanitize=thread" \
    CHECK_ARGS="--no-fork --scalar-once" &
running+=($!)
if need qemu-aarch64 qemu-user && need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross; then
    core_check neon MACHINE=aarch64 CC=aarch64-linux-gnu-gcc CHECK_ARGS="--no-fork --scalar-once" \
        RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" &
    running+=($!) builds+=(neon)
fi
for process in "${running[@]}"; do wait "$process"; done
for build in "${builds[@]}"; do
    found=$(fingerprint "$build")
    [ -n "$found" ] && [ "$found" = "$(fingerprint native)" ] ||
        { echo "the fingerprints of $build are others than native's"; exit 1; }
done
[ ! -f "$work/core-neon.txt" ] || grep -q neon "$work/core-neon.txt"
