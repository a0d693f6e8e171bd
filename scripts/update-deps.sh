#!/bin/sh
# Lock the dependencies of pyproject.toml, with hashes for every platform and without an index URL.
set -eu
uv=$1

lock() {
    output=$1
    shift
    "$uv" pip compile --no-config --quiet --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-header "$@" --output-file "requirements/$output"
    echo "requirements/$output: $(grep -c '==' "requirements/$output") packages"
}

lock runtime.txt pyproject.toml --upgrade
lock local.txt pyproject.toml --upgrade --extra local --group build --constraint requirements/runtime.txt
lock dev.txt pyproject.toml --upgrade --extra local --group build --group dev --constraint requirements/local.txt
lock workflows.txt pyproject.toml --upgrade --extra local --extra workflows --group build --constraint requirements/dev.txt
lock picture.txt --upgrade --group picture --constraint requirements/dev.txt
lock docs.txt --upgrade --group docs --constraint requirements/dev.txt
