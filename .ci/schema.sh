# The declared schema is the migrated one; the script for psql can be written.

step "schema: drift, the script"
"$bin/alembic" upgrade head
"$bin/alembic" check
make provision.sql
rm provision.sql
