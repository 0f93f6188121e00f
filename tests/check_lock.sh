#!/usr/bin/env bash
# The lock is what the *.in files resolve to: locking again changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
before=$(sha256sum requirements/*.txt)
bash tests/lock.sh
if [ "$before" != "$(sha256sum requirements/*.txt)" ]; then
  echo "requirements/*.txt were not what requirements/*.in resolve to; they are now: commit them" >&2
  exit 1
fi
