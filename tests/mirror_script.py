"""Mirrors a CSV file into mirror.opportunity: python mirror_script.py URL FILE"""

import sys

import psycopg

UPSERT = """
INSERT INTO mirror.opportunity (id, name) SELECT id, name FROM fresh
ON CONFLICT (id) DO UPDATE SET name = excluded.name
"""
CLEAN = """
DELETE FROM mirror.opportunity o
WHERE NOT EXISTS (SELECT FROM fresh f WHERE f.id = o.id)
"""

url, file = sys.argv[1:]
with psycopg.connect(url, application_name="acme-mirror") as connection:
    connection.execute("CREATE TEMP TABLE fresh (id text, name text) ON COMMIT DROP")
    with (
        open(file, encoding="utf-8") as rows,
        connection.cursor().copy("COPY fresh FROM STDIN (FORMAT csv)") as copy,
    ):
        copy.write(rows.read())
    connection.execute(UPSERT)
    connection.execute(CLEAN)
