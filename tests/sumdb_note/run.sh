#!/bin/sh
# Opens the golden checkpoint with Go's golang.org/x/mod/sumdb/note, as Debian
# packages it. Takes another vector file as its argument. Skips where Go is absent.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
vector=${1:-$here/../vectors/checkpoint.json}
gocode=/usr/share/gocode
if ! command -v go >/dev/null 2>&1; then
  echo "skipped: no Go here (apt-get install golang-go golang-golang-x-mod-dev)"
  exit 0
fi
if [ ! -d "$gocode/src/golang.org/x/mod/sumdb/note" ]; then
  echo "skipped: no golang.org/x/mod here (apt-get install golang-golang-x-mod-dev)"
  exit 0
fi
GOPATH=$gocode GO111MODULE=off GOFLAGS= exec go run "$here/main.go" "$vector"
