# The declared schema is the migrated one and the shipped script; the notebooks run.

step "schema: drift, the shipped script"
"$bin/alembic" upgrade head
"$bin/alembic" check
"$bin/python" -m llm_sql.provision | diff - provision.sql
echo "provision.sql is what alembic upgrade head --sql prints"

step "notebooks"
make notebooks
