#!/usr/bin/env bash
# ./run_all.sh                            set up, run benchmarks/quick.yaml, print the comparison table
# ./run_all.sh BENCHMARK.yaml [options]   the same with another benchmark; options of `semiseg run`
# ./run_all.sh test [options]             set up, check style and types, run the test suite; options of pytest
# ./run_all.sh COMMAND [options]          set up, then `semiseg COMMAND`, such as: ./run_all.sh methods
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Libraries that read DICOM and the like may switch the locale; texts stay UTF-8 all the same.
export PYTHONUTF8=1
python=${PYTHON:-python3}
environment=.venv

fail() {
    echo "run_all.sh: $*" >&2
    exit 2
}

set_up() { # set_up REQUIREMENTS: once for each content of the files that say what to install
    local stamp="$environment/.installed-${1%.txt}" wanted
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "Python 3.11 or newer is needed, as python3 or in the variable PYTHON."
    wanted=$(cat requirements*.txt pyproject.toml; "$python" --version; pwd)
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
    echo "Installing what $1 lists into $environment: once, for some minutes (docs/running.md: how to spare GBs without a GPU) ..."
    "$environment/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$environment" ||
        fail "no virtual environment could be made; install the venv module of $python."
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    "$environment/bin/python" -m pip install --quiet -r "$1"
    "$environment/bin/python" -m pip install --quiet --no-deps --no-build-isolation -e .
    printf '%s\n' "$wanted" >"$stamp"
}

run_tests() {
    set_up requirements-dev.txt
    "$environment/bin/ruff" check .
    "$environment/bin/ruff" format --check --quiet .
    "$environment/bin/python" -m mypy
    exec "$environment/bin/python" -m pytest -n "$(nproc 2>/dev/null || echo 2)" --dist loadgroup "$@"
}

case "${1:-}" in
    test)
        shift
        run_tests "$@"
        ;;
    "" | -*)
        set_up requirements.txt
        exec "$environment/bin/semiseg" run benchmarks/quick.yaml "$@"
        ;;
    *.yaml | *.yml)
        set_up requirements.txt
        exec "$environment/bin/semiseg" run "$@"
        ;;
    *)
        set_up requirements.txt
        exec "$environment/bin/semiseg" "$@"
        ;;
esac
