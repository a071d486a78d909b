"""A PostgreSQL database with a million devices, made by the database itself in a minute or two.

Sites are of unequal size, and most ids begin with the site, so that what a selector looks for lies
together in the order of the list: the case in which walking the list and filtering is slowest.
"""

import asyncpg

SITES = 50
_DEVICES = """
INSERT INTO devices (id, tenant, public_key_pem, public_key_sha256, certificate_pem,
    certificate_serial, certificate_expires_ms, enrolled_ms, online, last_seen_ms, reported,
    runtime_up, labels, facts)
SELECT CASE WHEN n % 4 = 0 THEN 'cam' ELSE 'site-' || site END || '-' || lpad(n::text, 7, '0'),
    'default', 'pem', md5(n::text), 'pem', n::text, $2 + 60 * 86400000::bigint, $2, n % 20 <> 0,
    CASE WHEN n % 50 = 0 THEN $2 - 86400000 ELSE $2 - n % 300000 END,
    repeat('x', 600), n % 1000 <> 0,
    jsonb_build_object('site', 'site-' || site, 'rack', (n % 400)::text)::text,
    '{"machine":["aarch64"]}'
FROM (SELECT n, floor(50 * power(random(), 2))::int AS site FROM generate_series(1, $1::int) n) s
"""

_TERMS = """
INSERT INTO device_terms (device_id, name, value, number)
SELECT id, x.name, x.value, x.number
FROM (SELECT id, enrolled_ms, labels::jsonb AS l, certificate_serial::int AS n FROM devices) d,
LATERAL (VALUES
    ('site', l->>'site', NULL::float8),
    ('rack', l->>'rack', (l->>'rack')::float8),
    ('tier', CASE WHEN n % 10 = 0 THEN 'canary' ELSE 'main' END, NULL),
    ('legacy', CASE WHEN n % 200 = 0 THEN 'true' END, NULL),
    ('machine', CASE WHEN n % 3 = 0 THEN 'x86_64' ELSE 'aarch64' END, NULL),
    ('ram_gib', (ARRAY['1.9', '3.8', '7.7', '15.5'])[1 + n % 4],
        (ARRAY[1.9, 3.8, 7.7, 15.5])[1 + n % 4]),
    ('accelerator', (ARRAY['cpu', 'cpu', 'cpu', 'edgetpu', 'cuda'])[1 + n % 5], NULL),
    ('agent_version', '0.1.' || n % 7, NULL),
    ('runs.fashion_mnist', CASE WHEN n % 100 = 0 THEN '1.1.0' ELSE '1.0.0' END, NULL)
) AS x (name, value, number)
WHERE x.value IS NOT NULL
"""

_ASSIGNMENTS = """
INSERT INTO assignments (device_id, version, signed_ms, expires_ms, entries, document)
SELECT id, 1, $1, $1, '[]', convert_to(repeat('x', 1000), 'UTF8') FROM devices
"""


async def fill(url: str, *, devices: int, now_ms: int) -> None:
    """Fill a migrated, empty database; indexes are made last, as a restored dump makes them."""
    connection = await asyncpg.connect(url, command_timeout=900)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SET maintenance_work_mem = '512MB'")
        made = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
            "AND tablename IN ('devices', 'device_terms') AND indexname LIKE 'ix%'"
        )
        for index in made:
            await connection.execute(f'DROP INDEX "{index["indexname"]}"')
        await connection.execute(_DEVICES, devices, now_ms)
        await connection.execute(_TERMS)
        await connection.execute(_ASSIGNMENTS, now_ms)
        for index in made:
            await connection.execute(index["indexdef"])
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
