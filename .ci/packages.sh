# Wheel and sdist, as somebody gets them who has no checkout: the wheel is built from the sdist in an environment that
# holds nothing but the declared build requirements, installed into it, and used from another directory by root and
# by an ordinary user.

step "packages: sdist"
make provision.sql
"$bin/python" -m pip install --quiet build twine
"$bin/python" -m build --sdist --no-isolation --outdir "$work/dist" . >"$work/build.txt" 2>&1 ||
    { tail -50 "$work/build.txt"; exit 1; }
rm provision.sql

step "packages: the wheel, built from it"
python3 -m venv "$work/venv"
"$bin/python" -c 'import build; print(*build.ProjectBuilder(".").build_system_requires, sep="\n")' >"$work/needs.txt"
"$work/venv/bin/python" -m pip install --quiet -r "$work/needs.txt"
"$work/venv/bin/python" -m pip wheel --no-deps --no-build-isolation --wheel-dir "$work/dist" "$work"/dist/*.tar.gz \
    >"$work/build.txt" 2>&1 || { tail -50 "$work/build.txt"; exit 1; }
"$bin/python" -m twine check --strict "$work"/dist/*
"$bin/python" .ci/check_packages.py "$work"/dist

step "packages: the wheel outside of the tree"
"$work/venv/bin/python" -m pip install --quiet "$work"/dist/*.whl
"$bin/python" .ci/check_packages.py --tour README.md >"$work/tour.py"
chmod a+r "$work/tour.py"

outside() { # what a user does, in a directory and with a home of its own
    (
        cd "$1"
        export HOME=$1 LLM_SQL_HOME=$1/llm-sql
        unset PYTHONPATH DATABASE_URL
        "${@:2}" "$work/venv/bin/llm-sql" demo --steps 20 --json >demo.json
        "${@:2}" "$work/venv/bin/python" "$work/tour.py" >tour.txt
        "${@:2}" "$work/venv/bin/llm-sql" doctor --json >doctor.json || { cat doctor.json; exit 1; }
        "${@:2}" "$work/venv/bin/llm-sql" generate pg_ -n 5
    )
}

mkdir "$work/outside"
outside "$work/outside"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    step "packages: the same as an ordinary user"
    install -d -o 65534 -g 65534 -m 700 "$work/ordinary"
    outside "$work/ordinary" setpriv --reuid=65534 --regid=65534 --clear-groups
fi
