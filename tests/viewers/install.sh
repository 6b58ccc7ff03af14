#!/bin/sh
# Installs the viewers that tests/viewers drives, each at the version pinned here, into node_modules (ignored by git).
# No browser is downloaded: Debian's chromium is used.
#
# dwv and playwright-core come by package-lock.json. OHIF comes as its package alone: the built dist in it needs none
# of its 900 dependencies, which `npm ci` would fetch.
set -eu
cd "$(dirname "$0")"
version=$(node -p 'require("./package.json").config.ohif')
integrity=$(node -p 'require("./package.json").config.ohif_integrity')
stamp="node_modules/.installed-$(cat package.json package-lock.json install.sh | sha256sum | cut -c1-16)"
if [ -f "$stamp" ]; then
    exit 0
fi
npm ci --no-progress
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm pack "@ohif/app@$version" --pack-destination "$folder" --silent >/dev/null
mv "$folder"/*.tgz "$folder/ohif.tgz"
found=$(node -e 'const { createHash } = require("crypto"); const { readFileSync } = require("fs");
    process.stdout.write("sha512-" + createHash("sha512").update(readFileSync(process.argv[1])).digest("base64"))' "$folder/ohif.tgz")
if [ "$found" != "$integrity" ]; then
    echo "the package @ohif/app $version is not the one that was pinned: $found" >&2
    exit 1
fi
mkdir -p node_modules/@ohif/app
tar xzf "$folder/ohif.tgz" -C node_modules/@ohif/app --strip-components=1 --exclude='*.map'
touch "$stamp"
