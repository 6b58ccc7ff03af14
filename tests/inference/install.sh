#!/bin/sh
# Installs an inference server for tests/models/remote, MLServer, into .venv (ignored by git): 0.4 GB that no other
# environment needs.
set -eu
cd "$(dirname "$0")"
stamp=".venv/.installed-$(cat requirements.txt install.sh | sha256sum | cut -c1-16)"
if [ -f "$stamp" ]; then
    exit 0
fi
rm -rf .venv
python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
.venv/bin/uv pip install --quiet --python .venv/bin/python --only-binary :all: --requirement requirements.txt
touch "$stamp"
