#!/bin/sh
# Makes the role and the database of the service; PostgreSQL's image runs it once, as its administrator.
set -eu
export DATABASE_PASSWORD_FILE="${DATABASE_PASSWORD_FILE:-/run/secrets/database_password}"
psql -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname "${POSTGRES_DB:-postgres}" <<'SQL'
\set password `cat "$DATABASE_PASSWORD_FILE"`
CREATE ROLE voiceprint LOGIN PASSWORD :'password';
CREATE DATABASE voiceprint OWNER voiceprint;
\connect voiceprint
CREATE EXTENSION vector;
SQL
