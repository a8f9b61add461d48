# Makes this clone's .venv from a lock; sourced by deploy/up and tests/run. Needs $root.

complain() {
    printf '%s\n' "$*" >&2
    exit 1
}

# usage: make_environment LOCK   (a file of deploy/locks: "local" or "test")
# A stamp inside .venv says from which lock and pyproject.toml, and for which place, it was made; while it holds, nothing is done.
make_environment() {
    local lock=$root/deploy/locks/$1.txt python=${PYTHON:-python3} venv=$root/.venv stamp wanted
    local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input)
    stamp=$venv/installed-$1
    wanted="$root $(cat "$root/pyproject.toml" "$lock" | cksum)"
    if [[ -x $venv/bin/python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        return
    fi
    command -v "$python" >/dev/null || complain "Python 3.11 or newer is needed, and there is no $python here."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        complain "Python 3.11 or newer is needed; $python is $("$python" -V 2>&1). Set PYTHON to a newer one."
    if command -v flock >/dev/null; then # two scripts at once take turns
        exec 9>"$root/.venv.lock"
        flock 9
    fi
    # An environment that was interrupted while it was made, or whose Python is gone, is made anew.
    if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        "$python" -c 'import venv, ensurepip' 2>/dev/null ||
            complain "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"
        echo "making $venv" >&2
        "$python" -m venv --clear "$venv" || complain "$venv could not be made."
    fi
    echo "installing gerbang[$1]: the first time this takes some minutes" >&2
    # Only what is locked, by its hash; then this checkout, editable and not compiled.
    "${pip[@]}" --require-hashes --requirement "$lock" &&
        HATCH_BUILD_NO_HOOKS=true "${pip[@]}" --no-deps --no-build-isolation --editable "$root" ||
        complain "The Python packages could not be installed (see above); run the same command again to go on."
    printf '%s' "$wanted" >"$stamp"
    exec 9>&-
}
