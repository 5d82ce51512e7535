#!/bin/sh
# Makes deploy/secrets: passwords, the key that encrypts the voices, and a certificate for tests.
#
#   deploy/make_secrets.sh HOST [FOLDER]
#
# HOST is the name under which browsers reach the service. What is there already stays. Keep a copy of
# the key in another place: without it all voices are lost. Put the certificate of an authority in the
# place of tls_certificate and tls_key.
set -eu
if [ $# -lt 1 ]; then
  echo "usage: deploy/make_secrets.sh HOST [FOLDER]" >&2
  exit 2
fi
host=$1
folder=${2:-$(dirname "$0")/secrets}
mkdir -p "$folder"
# Containers read the files as other users, so that everybody may; the folder keeps this machine's out.
chmod 0700 "$folder"
umask 022
secret() {   # secret NAME: a file of that name with the standard input, unless there is one
  if [ -s "$folder/$1" ]; then cat >/dev/null; return; fi
  cat >"$folder/.$1.tmp"
  mv "$folder/.$1.tmp" "$folder/$1"
}
openssl rand -hex 32 | secret key
openssl rand -hex 24 | secret postgres_password
openssl rand -hex 24 | secret database_password
echo "postgresql://voiceprint:$(cat "$folder/database_password")@database/voiceprint" | secret database
if [ ! -s "$folder/tls_certificate" ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=$host" \
    -addext "subjectAltName=DNS:$host" -keyout "$folder/.tls_key.tmp" -out "$folder/.tls.tmp" 2>/dev/null
  chmod 0644 "$folder/.tls_key.tmp"
  mv "$folder/.tls_key.tmp" "$folder/tls_key"
  mv "$folder/.tls.tmp" "$folder/tls_certificate"
fi
