"""A register of any size, written by the database itself: a million invented people in about a minute.

Nearly everybody is the public. Every fiftieth is elected, half of those are in the public too; every third has chosen
municipalities, every fifth topics, every twentieth a rhythm; every hundredth is stopped, every seventieth has left.
"""

import psycopg

from shared.contracts.news import Audience
from subscriptions.models import rank_of

# Ids rise with the time at which people came, as UUIDv7 does; their tails are as good as random.
PERSON = (
    "('01930000-' || lpad(to_hex(n / 4096 %% 65536), 4, '0') || '-7' || lpad(to_hex(n %% 4096), 3, '0')"
    " || '-8000-' || substr(md5(n::text), 1, 12))::uuid"
)
COUNCIL = "00000000-0000-7000-8000-000000000001"

FILL = f"""
INSERT INTO organisations (id, kind, name, name_key, municipalities, created_at)
VALUES ('{COUNCIL}', 'council', 'Kommunfullmäktige', 'kommunfullmäktige', '', now());

INSERT INTO subscribers (id, address, address_key, name, locale, topics, municipalities, generation, version,
                         indexed_version, paused_until, suppressed_at, created_at)
SELECT {PERSON}, address, address, 'Läsare ' || n, CASE WHEN n %% 10 = 0 THEN 'en' ELSE 'sv' END,
       CASE WHEN n %% 5 = 0 THEN '|organisation|results|' ELSE '' END,
       CASE WHEN n %% 3 = 0 THEN '|0880|08' || 81 + n %% 5 || '|' ELSE '' END, 1, 1, 1,
       CASE WHEN n %% 200 = 7 THEN now() + interval '30 days' END,
       CASE WHEN n %% 100 = 3 THEN now() END, now()
FROM (SELECT n, 'lasare.' || n || '@kalmar.example' AS address FROM generate_series(1, %(people)s) AS n) AS many;

INSERT INTO roles (id, subscriber_id, audience_rank, organisation_id, municipalities)
SELECT gen_random_uuid(), {PERSON}, {rank_of(Audience.PUBLIC)}, NULL, '' FROM generate_series(1, %(people)s) AS n
WHERE n %% 100 <> 0;

INSERT INTO roles (id, subscriber_id, audience_rank, organisation_id, municipalities, mandate_from, mandate_until)
SELECT gen_random_uuid(), {PERSON}, {rank_of(Audience.POLITICIAN)}, '{COUNCIL}', '|08' || 80 + n / 50 %% 6 || '|',
       date '2022-10-15', date '2090-10-14'
FROM generate_series(1, %(people)s) AS n WHERE n %% 50 = 0;

INSERT INTO frequencies (subscriber_id, topic, frequency)
SELECT {PERSON}, '', CASE WHEN n %% 40 = 0 THEN 'weekly' ELSE 'daily' END FROM generate_series(1, %(people)s) AS n
WHERE n %% 20 = 0;

INSERT INTO departures (subscriber_id, audience_rank, left_at)
SELECT {PERSON}, {rank_of(Audience.PUBLIC)}, now() FROM generate_series(1, %(people)s) AS n WHERE n %% 70 = 0;
"""


def fill(url: str, people: int, *, known: bool = True) -> None:
    """Fill an empty register, and let the database get to know it; or not, as when it has just been filled."""
    with psycopg.connect(url, autocommit=True) as connection, psycopg.ClientCursor(connection) as cursor:
        cursor.execute(FILL, {"people": people})
        if known:
            cursor.execute("VACUUM ANALYZE")
