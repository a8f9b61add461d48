# Makes this clone's .venv with the given extras; sourced by deploy/up and tests/run. Needs $root.

complain() {
    printf '%s\n' "$*" >&2
    exit 1
}

# usage: make_environment EXTRAS   (e.g. "local" or "test,dev")
# A stamp inside .venv says for which pyproject.toml and place these extras were installed; while it holds, nothing is done.
make_environment() {
    local extras=$1 python=${PYTHON:-python3} venv=$root/.venv stamp wanted
    stamp=$venv/installed-${extras//,/-}
    wanted="$root $(cksum <"$root/pyproject.toml")"
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
    echo "installing gerbang[$extras]" >&2
    HATCH_BUILD_NO_HOOKS=true "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --editable "$root[$extras]" ||
        complain "The Python packages could not be installed (see above); run the same command again to go on."
    printf '%s' "$wanted" >"$stamp"
    exec 9>&-
}
