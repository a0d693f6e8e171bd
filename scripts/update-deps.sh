#!/bin/sh
# Lock what pyproject.toml allows: hashes for every platform, and no name of an index or a host.
set -eu
uv=$1

lock() {
    output=$1
    shift
    "$uv" pip compile pyproject.toml --no-config --quiet --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-header "$@" --output-file "requirements/$output"
    echo "requirements/$output: $(grep -c '==' "requirements/$output") packages"
}

lock runtime.txt --upgrade
lock local.txt --upgrade --extra local --group build --constraint requirements/runtime.txt
lock dev.txt --upgrade --extra local --group build --group dev --constraint requirements/local.txt
