# What the parts of the check share: where they work, what they print, how they get programs and undo their own.
# Sourced by .ci/run from the root of the repository.

export CI=true PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off
unset DATABASE_URL LLM_SQL_PG_CONFIG PYTHONDONTWRITEBYTECODE
export TMPDIR=/tmp
# A gate says the same twice: its random calls are always the same. make test by itself draws new ones.
export LLM_SQL_HOSTILE_SEED=${LLM_SQL_HOSTILE_SEED:-gate}
work=$(mktemp -d /tmp/llm-sql-ci-XXXXXX)
chmod 711 "$work"
export LLM_SQL_HOME="$work/home"
bin="${VENV:-.venv}/bin"

cleanup() {
    [ -z "${asan_build:-}" ] || kill -- "-$asan_build" 2>/dev/null || true
    [ -x "$bin/llm-sql" ] && "$bin/llm-sql" down >/dev/null 2>&1 || true
    [ -n "${scratch:-}" ] && scratch_down $scratch
    rm -rf "$work"
}
trap cleanup EXIT

step() { printf '\n==> [%4ds] %s\n' "$SECONDS" "$*"; }

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
on_debian() { grep -qs '^ID=debian' /etc/os-release; }

apt_update() { # once
    [ -n "${apt_updated:-}" ] || apt-get -o Acquire::Retries=3 update -qq </dev/null ||
        echo "apt-get update failed; going on with the lists that are there"
    apt_updated=yes
}
apt_install() {
    apt_update
    DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install -y -qq --no-install-recommends "$@" \
        >/dev/null </dev/null
}

# A server with the address sanitizer takes minutes to compile. It begins after the first part, in the time that the next
# ones leave to it, and is done before any that measures.
asan="$work/asan-server"
begin_asan_server() {
    can_apt && on_debian || return 0
    step "a server with the address sanitizer: build, beside what follows"
    need bison bison && need flex flex && need perl perl
    mkdir -p "$asan"
    chmod 755 "$asan"
    setsid nice -n 19 bash tests/hunts/build_server.sh "$asan" >"$work/asan-build.txt" 2>&1 &
    asan_build=$!
}
finish_asan_server() {
    [ -n "${asan_build:-}" ] || return 0
    local began=$SECONDS
    renice -n 0 -g "$asan_build" >/dev/null 2>&1 || true
    wait "$asan_build" || { cat "$work/asan-build.txt"; return 1; }
    asan_build=
    echo "waited $((SECONDS - began)) s for the server with the address sanitizer"
}

# need PROGRAM PACKAGE...: have the program, installed if it is missing. Where that is impossible the caller goes on
# without what needs it (a false status) and says so; root on Debian can always install, so there it is an error.
need() {
    local program=$1
    shift
    command -v "$program" >/dev/null && return 0
    if can_apt; then
        apt_install "$@" && command -v "$program" >/dev/null && return 0
        if on_debian; then
            echo "error: $program is missing, and apt-get install $* did not bring it" >&2
            exit 1
        fi
    fi
    echo "LEFT OUT: $program is not here ($*)"
    return 1
}
