# Random sessions and random queries on a PostgreSQL with AddressSanitizer and assertions. The long hunts, by hand:
# docs/develop/testing.md.

if can_apt && on_debian; then
    need sqlsmith sqlsmith
    [ -f "$asan/asan.env" ] || begin_asan_server
    finish_asan_server
    cat "$work/asan-build.txt"

    hunt() ( # in a shell of its own: the sanitizer's options are for this server only
        . "$asan/asan.env"
        url=$("$bin/llm-sql" url)
        DATABASE_URL="$url" "$bin/llm-sql" provision
        step "random sessions: at most ${LLM_SQL_HUNT_CALLS:=4000} calls or 15 s as each role"
        "$bin/python" -m tests.hunts.stateful --url "$url" --asan "$asan/reports" --calls "$LLM_SQL_HUNT_CALLS" \
            --seconds 15 --seed "$LLM_SQL_HOSTILE_SEED" --folder "$work" >"$work/hunt.txt" ||
            { tail -60 "$work/hunt.txt"; exit 1; }
        grep seed "$work/hunt.txt"
        step "sqlsmith: a minute as each role"
        running=()
        for role in nobody superuser; do
            "$bin/python" -m tests.hunts.smith --url "$url" --asan "$asan/reports" --role "$role" --minutes 1 &
            running+=($!)
        done
        for process in "${running[@]}"; do wait "$process"; done
    )
    LLM_SQL_HOME="$work/asan-home" hunt
    (. "$asan/asan.env" && LLM_SQL_HOME="$work/asan-home" "$bin/llm-sql" down)
else
    echo "LEFT OUT: the hunts under the sanitizer, which take root on Debian"
fi
