#!/usr/bin/env bash
# Installs what the tests need and pip cannot bring: Debian's chromium, node, redis. Says what to do if it may not.
set -euo pipefail
case "$1" in
  chromium) commands=(chromium); packages=(chromium fonts-dejavu-core) ;;
  node) commands=(node npm); packages=(nodejs npm) ;;
  redis) commands=(redis-server); packages=(redis-server) ;;
  *) echo "usage: $0 chromium|node|redis" >&2; exit 2 ;;
esac
missing=0
for command in "${commands[@]}"; do command -v "$command" >/dev/null || missing=1; done
[ "$missing" = 0 ] && exit 0
if [ "$(id -u)" = 0 ]; then as_root=()
elif sudo -n true 2>/dev/null; then as_root=(sudo -n)
else
  echo "The tests need ${packages[*]}, and this user may not install packages. As root, run:" >&2
  echo "    apt-get install ${packages[*]}" >&2
  exit 1
fi
if ! command -v apt-get >/dev/null; then
  echo "The tests need the commands ${commands[*]}: install them with this system's package manager." >&2
  exit 1
fi
echo "installing ${packages[*]}"
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
