#!/bin/sh
# A database and a role per service; run by the postgres image once, when its volume is empty.
# No service can open another's database: what they know of one another, they have been told by events.
set -eu
secrets=${BUDKAVLE_SECRETS_DIR:-/run/secrets}

for service in content subscriptions distributor; do
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
        --set role="$service" --set password="$(cat "$secrets/${service}_database_password")" <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"role" OWNER :"role" ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE :"role" FROM PUBLIC;
SQL
done
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    --command 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC'
