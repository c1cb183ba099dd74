#!/usr/bin/env bash
# Makes a P-256 key and a self-signed certificate for one hashpact node, with
# openssl, for a company that brings its own instead of the node's.
#
#   certs/make-company-cert.sh --name node1.northstar.example --out /etc/hashpact/keys
#
# --name   DNS name in the certificate, for people; nobody checks it
# --out    folder for tls.key (mode 0600) and tls.crt
# --days   life of the certificate (default 397)
# --ca-cert FILE --ca-key FILE   sign with the company's own authority instead
# --self-test   make one in a temporary folder and check it
set -euo pipefail

usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; }
fail() { printf 'make-company-cert: %s\n' "$*" >&2; exit 1; }

# Prints the digest that the node card carries: SHA-256 of the SubjectPublicKeyInfo.
spki_digest() {
  openssl x509 -in "$1" -noout -pubkey | openssl pkey -pubin -outform DER |
    openssl dgst -sha256 -r | cut -d' ' -f1
}

make_certificate() {
  local name=$1 out=$2 days=$3 ca_cert=$4 ca_key=$5
  [ ! -e "$out/tls.key" ] || fail "$out/tls.key exists; a key is never overwritten"
  mkdir -p "$out"
  (
    umask 077
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$out/tls.key" 2>/dev/null
  )
  local extensions=(
    -addext "subjectAltName=DNS:$name"
    -addext "basicConstraints=critical,CA:FALSE"
    -addext "keyUsage=critical,digitalSignature"
    -addext "extendedKeyUsage=serverAuth,clientAuth"
  )
  if [ -n "$ca_cert" ]; then
    openssl req -new -key "$out/tls.key" -subj "/CN=$name" "${extensions[@]}" -out "$out/tls.csr"
    openssl x509 -req -in "$out/tls.csr" -CA "$ca_cert" -CAkey "$ca_key" -CAcreateserial \
      -CAserial "$out/tls.srl" -copy_extensions copy -days "$days" -sha256 \
      -out "$out/tls.crt" 2>/dev/null
    rm -f "$out/tls.csr" "$out/tls.srl"
  else
    openssl req -new -x509 -key "$out/tls.key" -subj "/CN=$name" "${extensions[@]}" \
      -days "$days" -sha256 -out "$out/tls.crt"
  fi
}

self_test() {
  local folder
  folder="$(mktemp -d)"
  # shellcheck disable=SC2064  # the folder is known now
  trap "rm -rf '$folder'" EXIT
  make_certificate node1.northstar.example "$folder/own" 397 "" ""
  [ "$(stat -c %a "$folder/own/tls.key" 2>/dev/null || stat -f %Lp "$folder/own/tls.key")" = 600 ] ||
    fail "the key's file is not mode 0600"
  openssl x509 -in "$folder/own/tls.crt" -noout -text | grep -q 'ASN1 OID: prime256v1' ||
    fail "the key is not P-256"
  openssl verify -CAfile "$folder/own/tls.crt" "$folder/own/tls.crt" >/dev/null ||
    fail "the certificate does not verify"
  [ "$(spki_digest "$folder/own/tls.crt" | wc -c)" -eq 65 ] || fail "no digest of the key"
  make_certificate node2.northstar.example "$folder/signed" 30 \
    "$folder/own/tls.crt" "$folder/own/tls.key"
  [ -s "$folder/signed/tls.crt" ] || fail "no certificate signed by an authority"
  if (make_certificate again "$folder/own" 1 "" "") 2>/dev/null; then
    fail "an existing key was overwritten"
  fi
  printf 'make-company-cert: ok\n'
}

name="" out="" days=397 ca_cert="" ca_key=""
while [ $# -gt 0 ]; do
  case "$1" in
    --name) name="${2-}"; shift 2 ;;
    --out) out="${2-}"; shift 2 ;;
    --days) days="${2-}"; shift 2 ;;
    --ca-cert) ca_cert="${2-}"; shift 2 ;;
    --ca-key) ca_key="${2-}"; shift 2 ;;
    --self-test) self_test; exit 0 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown argument $1" ;;
  esac
done
[ -n "$name" ] && [ -n "$out" ] || { usage >&2; fail "--name and --out are needed"; }
if [ -n "$ca_cert" ] && [ -z "$ca_key" ]; then fail "--ca-cert needs --ca-key"; fi

make_certificate "$name" "$out" "$days" "$ca_cert" "$ca_key"
printf 'key          %s\ncertificate  %s\nkey digest   %s\n' \
  "$out/tls.key" "$out/tls.crt" "$(spki_digest "$out/tls.crt")"
printf 'The digest goes on the node card; the certificate around the key may change freely.\n'
