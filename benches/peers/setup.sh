#!/usr/bin/env bash
# Makes the Python environment that peers.py runs in, unless it is there already, and prints its interpreter.
# What is installed is about 1 GB: the CPU build of PyTorch, and transformers.
set -euo pipefail

environment="${ANDIRON_PEERS_VENV:-$HOME/.cache/andiron-peers/venv}"
python="$environment/bin/python"

usable() {
  [ -x "$python" ] && "$python" -c 'import torch, transformers' 2>/dev/null
}

if ! usable; then
  echo "making $environment" >&2
  python3 -m venv "$environment" >&2
  "$python" -m pip install --quiet --disable-pip-version-check \
    --extra-index-url https://download.pytorch.org/whl/cpu torch numpy transformers >&2
  usable || { echo "torch or transformers cannot be imported by $python" >&2; exit 1; }
fi
echo "$python"
