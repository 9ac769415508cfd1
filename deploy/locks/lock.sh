#!/bin/sh
# Pins what each target of the Dockerfile installs, with hashes: `make locks`. For Linux on x86-64 and the image's Python.
set -eu
cd "$(dirname "$0")"
pin() {
  target=$1
  shift
  uv pip compile --quiet --upgrade --python-version 3.13 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-annotate --no-header \
    --output-file "$target.txt" "$@" ../../pyproject.toml
}
pin serve --extra cpu --extra postgres --extra otlp
pin serve-gpu --extra gpu --extra postgres --extra otlp
pin train --extra cpu --extra postgres --extra train --extra track
