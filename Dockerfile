# PostgreSQL's official image with the extensions pg_llm and pg_llm_vector; a new database gets the whole schema.
#
#   docker build -t llm-sql .                                   PostgreSQL 18
#   docker build -t llm-sql --build-arg PG_MAJOR=17 --build-arg PGVECTOR=yes .
#
# docs/operate/docker.md says how to run it. .ci/image.sh runs these steps without Docker.
ARG PG_MAJOR=18

# What compiles: the headers of the same major version, from the repository that the official image uses.
FROM postgres:${PG_MAJOR} AS build

# The newest of the distribution: headers of a major version fit all its minor versions.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make python3-venv "postgresql-server-dev-$PG_MAJOR" \
    && rm -rf /var/lib/apt/lists/*

# What writes the schema's script needs no more of Python than this.
RUN python3 -m venv /venv \
    && /venv/bin/pip install --no-cache-dir "alembic>=1.20" "numpy>=1.24" "psycopg[binary]>=3.2" "sqlalchemy>=2.1"

WORKDIR /src
COPY kernels kernels
RUN make -j "$(nproc)" -C kernels/postgres install DESTDIR=/out \
        PG_CONFIG="/usr/lib/postgresql/$PG_MAJOR/bin/pg_config" \
    && make -C kernels/postgres_vector install DESTDIR=/out \
        PG_CONFIG="/usr/lib/postgresql/$PG_MAJOR/bin/pg_config" \
    && strip --strip-unneeded "/out/usr/lib/postgresql/$PG_MAJOR/lib/pg_llm.so"

# The packages as an installation has them: llm_sql.models, llm_sql.migrations, llm_sql.kernels.
WORKDIR /schema
COPY llm_sql llm_sql
COPY models llm_sql/models
COPY migrations llm_sql/migrations
COPY kernels/python/__init__.py llm_sql/kernels/
COPY kernels/postgres llm_sql/kernels/postgres
RUN mkdir -p /out/docker-entrypoint-initdb.d \
    && /venv/bin/python -m llm_sql.provision > /out/docker-entrypoint-initdb.d/10-llm-sql.sql

# What runs: the official image, and the built files.
FROM postgres:${PG_MAJOR}

ARG PGVECTOR=no
# hadolint ignore=DL3008
RUN if [ "$PGVECTOR" = yes ]; then \
        apt-get update \
        && apt-get install -y --no-install-recommends "postgresql-$PG_MAJOR-pgvector" \
        && rm -rf /var/lib/apt/lists/*; \
    fi

COPY --from=build /out/ /
COPY docker/initdb/ /docker-entrypoint-initdb.d/
COPY docker/llm-sql-healthcheck /usr/local/bin/

LABEL org.opencontainers.image.title="llm-sql" \
      org.opencontainers.image.description="PostgreSQL with GPT models inside" \
      org.opencontainers.image.licenses="MIT"

HEALTHCHECK --interval=15s --timeout=10s --start-period=120s CMD ["llm-sql-healthcheck"]
