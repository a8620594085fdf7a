#!/usr/bin/env bash
# The READMEs say what is: the example is apps/embed/main.cpp, files they name exist, flags they name are known.
set -euo pipefail
cd "$TANDEM_SOURCE_DIR"
failures=0
wrong() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}

# The first C++ block of README.md.
awk '/^```cpp$/ { inside = 1; next } /^```$/ { if (inside) exit } inside' README.md |
  diff - apps/embed/main.cpp || wrong "README.md's example differs from apps/embed/main.cpp"

pages=$(find . -name '*.md' -not -path './build/*' -not -path './.*' -not -path './runs/*')
for page in $pages; do
  folder=$(dirname "$page")
  # Links, without their anchors; and in `code`, what looks like a file of this repository.
  for link in $(awk '/^```/ { code = !code } !code' "$page" | grep -oP '\]\(\K[^)#]+' || true); do
    [[ $link == http* || -e $folder/$link ]] || wrong "$page links to $link, which does not exist"
  done
  for name in $(grep -oP '`\K[\w.-]+/[\w./*-]*(?=`)' "$page" || true); do
    compgen -G "$name" >/dev/null || compgen -G "$folder/$name" >/dev/null ||
      [[ $name == build/* || $name == runs/* || -e ${name#tandem/} ]] || wrong "$page names $name, which does not exist"
  done
done

# Every test that a page names by its title, "in quotes" at the end of a table's row.
while read -r title; do
  grep -rqF "TEST_CASE(\"$title\"" tests || wrong "a page names the test \"$title\", which does not exist"
done < <(grep -hoP '\| "\K[^"]+(?=" \|$)' $pages)

# Every --flag of every line "tandem SUBCOMMAND ..." in a page.
if [[ -x ${TANDEM_PROGRAM:-} ]]; then
  while read -r subcommand flags; do
    help=$("$TANDEM_PROGRAM" "$subcommand" --help 2>&1) || wrong "tandem $subcommand --help fails"
    for flag in $(grep -oP '(?<= )--[a-z-]+' <<<" $flags" || true); do
      grep -qP -- "$flag(?![\w-])" <<<"$help" || wrong "a page names tandem $subcommand $flag, which is not in its help"
    done
  done < <(grep -hoP '(?<![\w/])tandem (train|eval|predict|compare|claims|data|inspect|devices|bench|version)\b[^`]*' $pages |
    sed 's/^tandem //' | sort -u)
fi
exit $((failures > 0))
