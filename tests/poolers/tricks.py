"""Attempts to write where writing was not requested, as Python code that a console runs.

Each one starts with its own ``engine`` and ``session``, and tries to add a pathogen whose slug is
the attempt's number. `RUNNER` tries all of them in one process.
"""

from __future__ import annotations

_ADD = "INSERT INTO aspen.pathogens (slug, name) VALUES ('SLUG', 'SLUG')"
_AGAIN = f"BEGIN READ WRITE; {_ADD}; COMMIT"
_RAW = "raw = session.connection().connection.driver_connection"
_SA = 'session.execute(sa.text("{}")); session.execute(sa.text("{}")); session.commit()'

# SQL within a session
_FIRST = (
    "SET TRANSACTION READ WRITE",
    "SET LOCAL transaction_read_only = off",
    "SET transaction_read_only TO off",
    "SELECT set_config('transaction_read_only', 'off', true)",
    "BEGIN READ WRITE",
    "START TRANSACTION READ WRITE",
    "COMMIT",
    "ROLLBACK AND CHAIN",
    "SAVEPOINT a; SET TRANSACTION READ WRITE",
    "RESET ALL; SET TRANSACTION READ WRITE",
)
# SQL that affects the transactions that follow
_LASTING = (
    "SET default_transaction_read_only = off",
    "SELECT set_config('default_transaction_read_only', 'off', false)",
    "UPDATE pg_settings SET setting = 'off' WHERE name = 'default_transaction_read_only'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "RESET ALL",
    "SET ROLE NONE; SET default_transaction_read_only = off",
)
# Several statements in one string
_STRINGS = (
    f"COMMIT; {_AGAIN}",
    f"end; {_AGAIN}",
    f"abort; {_AGAIN}",
    f"/* one /* two */ */ commit; {_AGAIN}",
    f"-- one\rcommit; {_AGAIN}",
    f"SELECT 1; rollback work; {_AGAIN}",
    f"SELECT $$;$$; commit; {_AGAIN}",
    f"SELECT $ä$ ' $ä$; commit; {_AGAIN}; --'",
    f"SELECT E'\\\\''; commit; {_AGAIN}; --'",
    f"SELECT 1 %(/*)s ' */ 2); commit; {_AGAIN}; --'",
    f"SET standard_conforming_strings = off; SELECT '\\\\'; commit; {_AGAIN}; --'",
    f"SAVEPOINT a; ROLLBACK TO a; commit; {_AGAIN}",
    f"DO $$ BEGIN SET TRANSACTION READ WRITE; {_ADD}; END $$",
    f"DO $$ BEGIN COMMIT; {_ADD}; END $$",
    f"PREPARE TRANSACTION 'x'; {_AGAIN}",
)
_ORM = "with {} as s: s.execute(sa.text(ADD)); s.commit()"
_PYTHON = (
    "session.execute(sa.text(ADD)); session.commit()",
    "session.add(Pathogen(slug=SLUG, name=SLUG)); session.commit()",
    "session.execute(sa.insert(Pathogen), [{'slug': SLUG, 'name': SLUG}]); session.commit()",
    "with engine.begin() as s: s.execute(sa.text(ADD))",
    "with engine.writing().begin() as s: s.execute(sa.text(ADD))",
    "with engine.with_limits(lock_ms=9).begin() as s: s.execute(sa.text(ADD))",
    "with engine.with_limits(lock_ms=9).writing().begin() as s: s.execute(sa.text(ADD))",
    "s = engine.with_limits(lock_ms=9).make_session(); s.execute(sa.text(ADD)); s.commit()",
    "with engine.derived(writable=True, guard=None).begin() as s: s.execute(sa.text(ADD))",
    "engine.writable = True\nwith engine.begin() as s: s.execute(sa.text(ADD))",
    "with type(engine).__mro__[1].begin(engine) as s: s.execute(sa.text(ADD))",
    "with engine._engine(writable=True).begin() as c: c.execute(sa.text(ADD))",
    "with engine._make_engine(writable=True).begin() as c: c.execute(sa.text(ADD))",
    "with engine._write_engine.begin() as c: c.execute(sa.text(ADD))",
    "with engine.engine.begin() as c: c.execute(sa.text(ADD))",
    "with session.get_bind().begin() as c: c.execute(sa.text(ADD))",
    "from sqlalchemy.orm import Session\n" + _ORM.format("Session(engine.engine)"),
    (
        "with engine.engine.execution_options(isolation_level='AUTOCOMMIT').connect() as c:"
        " c.execute(sa.text(ADD))"
    ),
    (
        "session.connection(execution_options={'isolation_level': 'AUTOCOMMIT'})"
        ".execute(sa.text(ADD)); session.commit()"
    ),
    (
        "session.connection(execution_options={'postgresql_readonly': False})"
        ".execute(sa.text(ADD)); session.commit()"
    ),
    "engine.dispose()\nwith engine.engine.begin() as c: c.execute(sa.text(ADD))",
    "engine.engine.dispose()\nwith engine.engine.begin() as c: c.execute(sa.text(ADD))",
    "raw = engine.engine.pool.recreate().connect(); raw.cursor().execute(ADD); raw.commit()",
    "raw = engine.engine.pool._creator(); raw.cursor().execute(ADD); raw.commit()",
    "raw = engine.engine.raw_connection(); raw.cursor().execute(ADD); raw.commit()",
    (
        f"{_RAW}; raw.rollback(); raw.set_session(readonly=False); raw.cursor().execute(ADD);"
        " raw.commit()"
    ),
    f"{_RAW}; raw.rollback(); raw.readonly = False; raw.cursor().execute(ADD); raw.commit()",
    f"{_RAW}; raw.rollback(); raw.autocommit = True; raw.cursor().execute(ADD)",
    f"{_RAW}; raw.rollback(); raw.set_session(autocommit=True); raw.cursor().execute(ADD)",
    f"{_RAW}; raw.set_isolation_level(0); raw.cursor().execute(ADD)",
    f"{_RAW}; raw.reset(); raw.cursor().execute(ADD); raw.commit()",
    f"{_RAW}; raw.rollback(); raw.cursor_factory = None; raw.cursor().execute(AGAIN)",
    (
        f"from psycopg2.extensions import cursor\n{_RAW}; raw.rollback()\n"
        "raw.cursor(cursor_factory=cursor).execute('commit; ' + AGAIN)"
    ),
    (
        f"from psycopg2.extras import DictCursor\n{_RAW}; raw.cursor(cursor_factory=DictCursor)"
        ".execute('commit; ' + AGAIN)"
    ),
    (
        f"{_RAW}; raw.rollback(); raw.tpc_begin(raw.xid(1, 'a', 'b')); raw.cursor().execute(ADD);"
        " raw.tpc_commit()"
    ),
    (
        "c = session.connection().engine.connect(); t = c.begin_twophase();"
        " c.execute(sa.text(ADD)); t.prepare(); t.commit()"
    ),
    (
        f"import io\n{_RAW}; raw.cursor().copy_expert("
        "'COPY aspen.pathogens (slug, name) FROM STDIN',"
        " io.StringIO(SLUG + '\\t' + SLUG + '\\n')); raw.commit()"
    ),
    f"import io\n{_RAW}; raw.cursor().copy_expert('commit; ' + AGAIN, io.StringIO(''))",
    f"{_RAW}; raw.cursor().executemany('commit; ' + AGAIN, [()])",
    f"{_RAW}; raw.cursor().callproc('now(); commit; ' + AGAIN + '; select now')",
    f"from psycopg2.sql import SQL\n{_RAW}; raw.cursor().execute(SQL('commit; ' + AGAIN))",
    (
        f"from psycopg2.extensions import AsIs\n{_RAW}; "
        "raw.cursor().execute('select 1; %s', (AsIs('commit; ' + AGAIN),))"
    ),
    (
        f"from psycopg2.extensions import AsIs\nfrom types import MappingProxyType\n{_RAW}; "
        "raw.cursor().execute('select 1; %(a)s', MappingProxyType({'a': AsIs('commit; ' + AGAIN)}))"
    ),
    # The same with a transaction open, when most statements need no preparation.
    f"{_RAW}; raw.cursor().execute('select 1'); raw.cursor().execute('commit; ' + AGAIN)",
    (
        f"from psycopg2.extensions import AsIs\n{_RAW}; raw.cursor().execute('select 1'); "
        "raw.cursor().execute('select 1; %s', (AsIs('commit; ' + AGAIN),))"
    ),
    (
        f"from psycopg2.extensions import AsIs\n{_RAW}; raw.cursor().execute('select 1'); "
        "raw.cursor().execute('select 1; %(a)s', {'a': AsIs('commit; ' + AGAIN)})"
    ),
    (
        f"{_RAW}; raw.cursor().execute('select 1'); "
        "raw.cursor().execute('set standard_conforming_strings = off'); "
        'raw.cursor().execute("select \'\\\\\'; commit; " + AGAIN + " --\'")'
    ),
    f"{_RAW}; raw.cursor().execute(('commit; ' + AGAIN).encode())",
    f"{_RAW}; raw.cursor('named').execute('select 1; commit; ' + AGAIN)",
    (
        f"{_RAW}; raw.take_up(__import__('dataclasses').replace(raw.policy, writable=True,"
        " guard=type(raw.policy.guard).NONE)); raw.cursor().execute(ADD); raw.commit()"
    ),
    f"{_RAW}\nwith raw:\n  raw.cursor().execute(ADD)",
    (
        "with engine.reading() as s: s.execute(sa.text('SET TRANSACTION READ WRITE'));"
        " s.execute(sa.text(ADD)); s.commit()"
    ),
    "from aspen.database.migrate import downgrade\ndowngrade(engine.engine, 'base')",
)
CODES = (
    *(_SA.format(first, "ADD") for first in _FIRST),
    *(
        f'session.execute(sa.text("{lasting}")); session.commit();'
        ' session.execute(sa.text("ADD")); session.commit()'
        for lasting in _LASTING
    ),
    *(
        f'session.connection().exec_driver_sql("""{string}"""); session.commit()'
        for string in _STRINGS
    ),
    *_PYTHON,
)
"""Every attempt."""

RUNNER = f"""
import gc, json, pathlib, sys
import sqlalchemy as sa
ADD, AGAIN = {_ADD!r}, {_AGAIN!r}
for number, code in enumerate(json.loads(pathlib.Path(sys.argv[1]).read_text())):
    slug = "T" + str(number)
    add, again = ADD.replace("SLUG", slug), AGAIN.replace("SLUG", slug)
    code = code.replace('sa.text("ADD")', "sa.text(ADD)").replace("SLUG'", slug + "'")
    here = dict(globals(), session=engine.make_session(), ADD=add, AGAIN=again, SLUG=slug)
    try:
        exec(code, here)
        print(number, "ran")
    except BaseException as error:
        print(number, type(error).__name__, str(error).partition("\\n")[0][:150])
    finally:
        session = here["session"]
        session.invalidate()
        here.clear()
        gc.collect()
"""
