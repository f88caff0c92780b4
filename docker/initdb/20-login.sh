#!/bin/bash
# First start only: a login for an application, which is no superuser.
#   LLM_SQL_LOGIN                 its name; unset: none is made
#   LLM_SQL_LOGIN_PASSWORD_FILE   a file that holds its password
#   LLM_SQL_LOGIN_ROLE            llm_trainer (default) or llm_reader
set -euo pipefail

[ -n "${LLM_SQL_LOGIN:-}" ] || exit 0
file=${LLM_SQL_LOGIN_PASSWORD_FILE:-}
if [ -z "$file" ]; then
    echo "error: LLM_SQL_LOGIN is set; LLM_SQL_LOGIN_PASSWORD_FILE must name the file with its password" >&2
    exit 1
fi
if [ ! -r "$file" ]; then
    echo "error: $(id -un) cannot read $file: a secret's file must be readable for uid $(id -u)" >&2
    exit 1
fi
LLM_SQL_LOGIN_PASSWORD=$(<"$file")
if [ -z "$LLM_SQL_LOGIN_PASSWORD" ]; then
    echo "error: $file is empty" >&2
    exit 1
fi
LLM_SQL_LOGIN_ROLE=${LLM_SQL_LOGIN_ROLE:-llm_trainer}
case "$LLM_SQL_LOGIN_ROLE" in
    llm_reader | llm_trainer) ;;
    *)
        echo "error: LLM_SQL_LOGIN_ROLE is llm_reader or llm_trainer, not $LLM_SQL_LOGIN_ROLE" >&2
        exit 1
        ;;
esac
export LLM_SQL_LOGIN LLM_SQL_LOGIN_ROLE LLM_SQL_LOGIN_PASSWORD

# The environment is not visible to other accounts, arguments are.
psql -qX -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv login LLM_SQL_LOGIN
\getenv role LLM_SQL_LOGIN_ROLE
\getenv password LLM_SQL_LOGIN_PASSWORD
CREATE ROLE :"login" LOGIN PASSWORD :'password' IN ROLE :"role";
SQL
echo "created login $LLM_SQL_LOGIN in role $LLM_SQL_LOGIN_ROLE"
