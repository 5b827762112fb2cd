#!/usr/bin/env bash
# Makes the Python environment that peers.py runs in, unless it is there already, and prints its interpreter.
# PyPI's PyTorch brings its CUDA libraries along, several GB. Where the address can be reached,
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu takes the build without them.
set -euo pipefail

environment="${ANDIRON_PEERS_VENV:-$HOME/.cache/andiron-peers/venv}"
python="$environment/bin/python"

usable() {
  [ -x "$python" ] && "$python" -c 'import torch, transformers, onnxruntime, onnxscript' 2>/dev/null
}

if ! usable; then
  echo "making $environment" >&2
  python3 -m venv "$environment" >&2
  "$python" -m pip install --quiet --disable-pip-version-check torch numpy transformers onnxruntime onnxscript >&2
  usable || { echo "a package cannot be imported by $python" >&2; exit 1; }
fi
echo "$python"
