#!/bin/sh
# A database and two roles per service; run by the postgres image once, when its volume is empty.
# The one that migrates owns what is made; the service itself reads and writes rows, and can change no table. No service can
# open another's database: what they know of one another, they have been told by events.
set -eu
secrets=${BUDKAVLE_SECRETS_DIR:-/run/secrets}

ask() {
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" "$@"
}

for service in content subscriptions distributor; do
    ask --dbname postgres \
        --set role="$service" --set password="$(cat "$secrets/${service}_database_password")" \
        --set owner="${service}_owner" --set owner_password="$(cat "$secrets/${service}_owner_password")" <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password';
CREATE DATABASE :"role" OWNER :"owner" ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE :"role" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"role" TO :"role";
SQL
    ask --dbname "$service" --set role="$service" --set owner="${service}_owner" <<'SQL'
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"role";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" GRANT USAGE ON SEQUENCES TO :"role";
SQL
done
ask --dbname postgres --command 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC'
