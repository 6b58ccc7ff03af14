#!/bin/sh
# Installs two inference servers for tests/models/remote, MLServer and NVIDIA's Triton, into .venv (ignored by git):
# 0.5 GB that no other environment needs.
set -eu
cd "$(dirname "$0")"
triton=nvidia-pytriton==0.7.0
stamp=".venv/.installed-$(cat requirements.txt install.sh | sha256sum | cut -c1-16)"
if [ -f "$stamp" ]; then
    exit 0
fi
rm -rf .venv
python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
set -- .venv/bin/uv pip install --quiet --python .venv/bin/python --only-binary :all:
"$@" --requirement requirements.txt
"$@" --no-deps "$triton"
touch "$stamp"
