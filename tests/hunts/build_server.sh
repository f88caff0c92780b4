#!/usr/bin/env bash
# A PostgreSQL with AddressSanitizer and assertions, from Debian's source package, and our extension in it with the
# sanitizer, too. What PostgreSQL tells Valgrind of its memory contexts goes to the sanitizer (valgrind/memcheck.h):
# it sees accesses beyond a palloc'ed chunk and to a freed one.
#
# usage: bash tests/hunts/build_server.sh PREFIX [MAJOR]     MAJOR: 15 (default), or what the distribution has
#
# Only what a server with our extension needs is built: no clients, contrib, ICU, readline or zlib. As root on Debian;
# the sources come from where its packages come from. A second call builds the extension alone.
#
# Run servers on it by LLM_SQL_PG_CONFIG=PREFIX/bin/pg_config and the options that PREFIX/asan.env exports.
set -euo pipefail

prefix=${1:?usage: build_server.sh PREFIX [MAJOR]}
major=${2:-15}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
jobs=$(nproc)
# Leaks of programs that end are no finding; a refused allocation must be NULL, as it is without the sanitizer.
export ASAN_OPTIONS=detect_leaks=0

source_lists() { # deb-src lines for every suite that there are deb lines for, in a file of our own
    local list=$1
    : >"$list"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] && sed -n 's/^deb \(\[[^]]*\] \)\?/deb-src \1/p' "$file" >>"$list"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] || continue
        awk 'function out(  i, j) {
                 for (i = 1; i <= nu; i++) for (j = 1; j <= ns; j++)
                     print "deb-src " (key ? "[signed-by=" key "] " : "") uri[i] " " suite[j] " " components
                 nu = ns = 0; key = components = "" }
             /^[ \t]*$/ { out() }
             /^URIs:/ { nu = NF - 1; for (i = 2; i <= NF; i++) uri[i - 1] = $i }
             /^Suites:/ { ns = NF - 1; for (i = 2; i <= NF; i++) suite[i - 1] = $i }
             /^Components:/ { $1 = ""; components = substr($0, 2) }
             /^Signed-By: *\// { key = $2 }
             END { out() }' "$file" >>"$list"
    done
    sort -u -o "$list" "$list"
}

get_source() { # postgresql-MAJOR's newest source that can be had, into $prefix/src
    local lists="$prefix/apt" version
    mkdir -p "$lists/lists/partial" "$prefix/src"
    source_lists "$lists/sources.list"
    local apt=(-o "Dir::Etc::SourceList=$lists/sources.list" -o "Dir::Etc::SourceParts=-"
        -o "Dir::State::Lists=$lists/lists" -o "Dir::Cache::srcpkgcache=" -o "Dir::Cache::pkgcache="
        -o "Acquire::Retries=3" -o "APT::Sandbox::User=root")
    apt-get "${apt[@]}" update -qq </dev/null
    # A mirror may list a version whose files are gone.
    for version in $(apt-cache "${apt[@]}" showsrc "postgresql-$major" | sed -n 's/^Version: //p' | sort -rVu); do
        # As PostgreSQL has it: Debian's patches install libraries into /usr/lib, whatever the prefix is.
        (cd "$prefix/src" && apt-get "${apt[@]}" source -qq --download-only "postgresql-$major=$version" </dev/null &&
            tar -xf "postgresql-${major}_"*.orig.tar.*) && return 0
        rm -rf "${prefix:?}/src"/*
    done
    echo "error: no source of postgresql-$major can be had" >&2
    return 1
}

build_server() {
    local source flags
    get_source
    source=$(echo "$prefix"/src/postgresql-"$major"*/)
    flags="-O1 -g1 -fsanitize=address -fno-omit-frame-pointer -DUSE_VALGRIND -I$here/asan"
    cd "$source"
    # A walk through all memory after every command, six times the time of all else, for what the sanitizer sees anyway.
    sed -i '/MemoryContextCheck(TopMemoryContext)/d' src/backend/tcop/postgres.c
    ./configure -q --prefix="$prefix" --enable-cassert --without-readline --without-icu --without-zlib \
        CFLAGS="$flags" LDFLAGS="-fsanitize=address"
    grep -q '^pkglibdir = \$(libdir)$' src/Makefile.global || { echo "error: libraries would not go below $prefix"; return 1; }
    make -s -j"$jobs" -C src/backend generated-headers
    make -s -j"$jobs" -C src/backend
    for part in src/include src/port src/common src/interfaces/libpq src/backend src/timezone src/makefiles src/pl/plpgsql/src \
        src/backend/snowball src/backend/utils/mb/conversion_procs src/bin/initdb src/bin/pg_ctl src/bin/pg_config; do
        make -s -j"$jobs" -C "$part" all install
    done
    make -s -C config install
    make -s -C src install-local
    cd "$root"
    rm -rf "$prefix/src" "$prefix/apt"
}

if [ ! -x "$prefix/bin/pg_config" ]; then
    began=$SECONDS
    # Not in a condition, where errors would not end it.
    trap 'tail -30 "$prefix/build.log"' ERR
    set -E
    build_server >"$prefix/build.log" 2>&1
    set +E
    trap - ERR
    echo "the server: $((SECONDS - began)) s"
fi

began=$SECONDS
# -O1 for ours as well: code with checks is slow to compile at -O3, and no bit may depend on it.
make -s -j"$jobs" -C "$root/kernels/postgres" install PG_CONFIG="$prefix/bin/pg_config" \
    BUILD_DIR="$prefix/extension" CORE_BUILD="$prefix/core" \
    CORE_FLAGS="-std=c11 -O1 -ffp-contract=off -fno-math-errno -fvisibility=hidden -pthread -fsanitize=address" \
    PG_CFLAGS="-O1 -ffp-contract=off -Wno-declaration-after-statement -MMD -MP" >"$prefix/extension.log" 2>&1 ||
    { tail -30 "$prefix/extension.log"; exit 1; }
echo "the extension: $((SECONDS - began)) s"

mkdir -p "$prefix/reports"
chmod 1777 "$prefix/reports"
cat >"$prefix/asan.env" <<ENV
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:disable_coredump=1:detect_stack_use_after_return=0:allocator_may_return_null=1:max_allocation_size_mb=16:log_path=$prefix/reports/asan
export LLM_SQL_PG_CONFIG=$prefix/bin/pg_config
ENV
