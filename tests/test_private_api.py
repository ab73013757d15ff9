"""Private API of Django and psycopg that we rely on: an upgrade that changes it fails here, and says where to look."""

import ast
import inspect
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.admin.utils import display_for_field
from django.contrib.admin.views.main import ChangeList
from django.db import OperationalError, connection, connections, models, transaction
from django.db.models.deletion import Collector, get_candidate_relations_to_delete
from django.db.models.options import Options
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import ModelSignal
from django.dispatch import Signal
from django.test.utils import CaptureQueriesContext, override_settings
from example.crm.models import Account, CompoundModel, Seen, SFObjectModel
from psycopg.pq import TransactionStatus

from hc_signals.delivery import connections as ours
from hc_signals.delivery import project_code
from hc_signals.delivery.instances import InstanceBuilder
from hc_signals.delivery.isolation import driver, message
from tests.conftest import ROOT
from tests.sfdc.models import Everything


def look_at(file: str, text: str) -> str:
    """Return where a file of ours relies on something: the line that an upgrade must be held against."""
    lines = (ROOT / "hc_signals" / file).read_text(encoding="utf-8").splitlines()
    numbers = [number for number, line in enumerate(lines, 1) if text in line]
    assert numbers, f"hc_signals/{file} does not mention {text!r} any more: remove its test from {Path(__file__).name}"
    return f"changed by an upgrade: look at hc_signals/{file}:{numbers[0]} ({text})"


def test_relies_on_the_entries_of_a_signal() -> None:
    where = look_at("delivery/connections.py", "(uid, sender_id), reference, *senders, is_async = entry")
    signal = Signal()

    def one(**kwargs: Any) -> None: ...
    async def two(**kwargs: Any) -> None: ...

    signal.connect(two, sender=Account, dispatch_uid="mine")
    signal.connect(one, weak=False)
    first, second = signal.receivers
    assert first[0] == ("mine", id(Account)) and first[1]() is two and first[-1] is True, where
    assert second[0][1] == ours.EVERY_SENDER == id(None) and second[1] is one and second[-1] is False, where
    assert len(first) in (3, 4), where
    assert [each.receiver for each in ours.connections_of(signal)] == [two, one], where


def test_relies_on_live_receivers_of_a_signal() -> None:
    where = look_at("delivery/connections.py", "signal._live_receivers(sender)")
    signal = Signal()

    def one(**kwargs: Any) -> None: ...
    async def two(**kwargs: Any) -> None: ...

    signal.connect(two, sender=Account)
    signal.connect(one, sender=Account)
    sync, asynchronous = signal._live_receivers(Account)
    assert (list(sync), list(asynchronous)) == ([one], [two]), where
    assert [each.receiver for each, _ in ours.connected(signal, Account)] == [one, two], where


@pytest.mark.django_db
def test_relies_on_savepoint_ids_and_run_on_commit() -> None:
    """Hooks of a receiver that failed are dropped by the savepoint in which they were made."""
    where = look_at("delivery/isolation/call.py", "savepoint_ids.append")
    hooks = look_at("delivery/isolation/transaction.py", "for sids, hook, _ in hooks")
    before = list(connection.run_on_commit)
    with transaction.atomic():
        outer = list(connection.savepoint_ids)
        assert isinstance(connection.savepoint_ids, list) and connection.in_atomic_block, where
        connection.savepoint_ids.append("ours")
        transaction.on_commit(test_relies_on_savepoint_ids_and_run_on_commit, robust=True)
        connection.savepoint_ids.remove("ours")
        assert isinstance(connection.run_on_commit, list), hooks
        sids, hook, robust = connection.run_on_commit[-1]
        assert set(sids) == {*outer, "ours"}, where
        assert (hook, robust) == (test_relies_on_savepoint_ids_and_run_on_commit, True), hooks
        connection.run_on_commit = before


@pytest.mark.django_db(transaction=True)
def test_relies_on_needs_rollback() -> None:
    where = look_at("delivery/isolation/call.py", "needs_rollback")
    with transaction.atomic():
        assert connection.needs_rollback is False, where
        with (
            pytest.raises(Exception, match="nowhere"),
            transaction.atomic(savepoint=False),
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT * FROM nowhere")
        assert connection.needs_rollback is True, where
        connection.set_rollback(True)


@pytest.mark.django_db
def test_relies_on_the_order_of_execute_wrappers() -> None:
    """The last one is the innermost: ours sees the statement as it goes to the server."""
    where = look_at("postgres/wrappers.py", "connection.execute_wrappers = own")
    seen: list[tuple[str, Any]] = []

    def note(name: str) -> Any:
        def wrapper(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
            seen.append((name, type(context["cursor"].cursor)))
            return execute(sql, params, many, context)

        return wrapper

    assert isinstance(connection.execute_wrappers, list), where
    with connection.execute_wrapper(note("first")), connection.execute_wrapper(note("last")):
        connection.cursor().execute("SELECT 1")
        assert [name for name, _ in seen] == ["first", "last"], where
    kind = look_at("delivery/isolation/message.py", "type(cursor) is Cursor")
    from hc_signals.delivery.isolation.message import Cursor

    assert seen[0][1] is Cursor, kind


@pytest.mark.django_db
def test_relies_on_wrappers_being_looked_up_for_each_statement() -> None:
    """Another list in their place is what the next statement passes, and the project's list is not used."""
    where = look_at("postgres/wrappers.py", "connection.execute_wrappers = own")
    seen: list[str] = []

    def note(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note), connection.cursor() as cursor:
        before, connection.execute_wrappers = connection.execute_wrappers, []
        cursor.execute("SELECT 1")
        connection.execute_wrappers = before
        cursor.execute("SELECT 2")
    assert seen == ["SELECT 2"], where


@pytest.mark.django_db
def test_relies_on_how_a_block_of_atomic_ends() -> None:
    """The statement that ends a block goes through the wrappers, when the block's savepoint is no longer listed."""
    where = look_at("delivery/isolation/call.py", '"RELEASE SAVEPOINT" in sql')
    blocks = look_at("delivery/isolation/call.py", "connection.atomic_blocks")
    seen: list[tuple[str, list[str]]] = []

    def note(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        seen.append((sql, list(connection.savepoint_ids)))
        return execute(sql, params, many, context)

    with transaction.atomic():
        outer, depth = list(connection.savepoint_ids), len(connection.atomic_blocks)
        with connection.execute_wrapper(note), transaction.atomic():
            assert len(connection.atomic_blocks) == depth + 1, blocks
        sql, listed = seen[-1]
        assert sql.startswith("RELEASE SAVEPOINT") and sql.endswith('"') and listed == outer, where


@pytest.mark.django_db
def test_relies_on_the_log_of_queries() -> None:
    """DEBUG = True notes every statement for ever; who captures them says so."""
    where = look_at("postgres/wrappers.py", "connection.queries_log.clear()")
    capture = look_at("postgres/wrappers.py", "connection.force_debug_cursor")
    assert connection.force_debug_cursor is False, capture
    with CaptureQueriesContext(connection):
        assert connection.force_debug_cursor is True, capture
        connection.cursor().execute("SELECT 1")
        assert connection.queries_log, where
    connection.queries_log.clear()
    assert not connection.queries, where


@pytest.mark.django_db
def test_relies_on_several_statements_in_one_message() -> None:
    """A call's savepoint goes with its first statement; the answers come one by one."""
    where = look_at("delivery/isolation/message.py", "cursor.nextset()")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SAVEPOINT ours; SELECT %s", [7])
        assert cursor.cursor.nextset(), where
        assert cursor.fetchall() == [(7,)], where
    status = look_at("delivery/isolation/message.py", "pgconn.transaction_status")
    assert connection.connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.INTRANS, status


@pytest.mark.django_db(transaction=True)
def test_relies_on_psycopg_calling_wait_under_its_lock() -> None:
    """Each message of a receiver goes through wait(), also one that Django's execute wrappers do not get."""
    where = look_at("delivery/isolation/driver.py", "self._wait, raw.wait = raw.wait, self._before_wait")
    lock = look_at("delivery/isolation/driver.py", "raw.lock = threading.RLock()")
    raw: Any = connection.copy()
    raw.ensure_connection()
    psycopg_connection, waits = raw.connection, 0
    copies = []  # held until the end: psycopg 3.2 ends a forgotten copy without its lock

    def wait(*args: Any, **kwargs: Any) -> Any:
        nonlocal waits
        waits += 1
        assert not psycopg_connection.lock.acquire(blocking=False), lock
        return before(*args, **kwargs)

    before, psycopg_connection.wait = psycopg_connection.wait, wait
    try:
        with raw.cursor() as cursor:
            for send in (
                lambda: cursor.execute("SELECT 1"),
                lambda: cursor.executemany("SELECT %s", [[1]]),
                lambda: list(cursor.stream("SELECT 1")),
                lambda: copies.append(cursor.copy("COPY (SELECT 1) TO STDOUT")) or copies[0].__enter__(),
            ):
                waits = 0
                send()
                assert waits, where
    finally:
        del psycopg_connection.wait
        raw.close()


@pytest.mark.django_db
def test_relies_on_the_place_of_autocommit_in_psycopg() -> None:
    where = look_at("delivery/isolation/message.py", "raw._autocommit = True")
    raw: Any = connection.copy()
    raw.ensure_connection()
    try:
        raw.set_autocommit(False)
        with message.beginning(raw.connection) as begin, raw.cursor() as cursor:
            assert begin == ["BEGIN"] and raw.connection.autocommit, where
            cursor.execute("SELECT 1")
            assert raw.connection.info.transaction_status is TransactionStatus.IDLE, where
        assert not raw.connection.autocommit, where
    finally:
        raw.close()


@pytest.mark.django_db
def test_relies_on_psycopg_attributes_of_a_connection() -> None:
    where = look_at("delivery/isolation/driver.py", '_ALWAYS = ("row_factory", "cursor_factory")')
    connection.ensure_connection()
    for name in (*driver._ALWAYS, *driver._OUTSIDE):
        assert hasattr(connection.connection, name), where


@pytest.mark.django_db
def test_relies_on_closing_connections_after_a_request() -> None:
    where = look_at("delivery/isolation/others.py", "connection.close_if_unusable_or_obsolete()")
    errors = look_at("delivery/isolation/others.py", "connection.errors_occurred")
    other: Any = connection.copy()
    other.settings_dict["CONN_MAX_AGE"] = None
    other.connect()
    try:
        assert (other.errors_occurred, other.autocommit, other.atomic_blocks) == (False, True, []), errors
        other.connection.close()
        with pytest.raises(OperationalError):
            other.cursor().execute("SELECT 1")
        assert other.errors_occurred, errors
        other.close_if_unusable_or_obsolete()
        assert other.connection is None, where
    finally:
        other.close()


def test_relies_on_signals_with_lazy_senders() -> None:
    where = look_at("signals.py", "ModelSignal()")
    signal = ModelSignal()

    def receive(**kwargs: Any) -> None: ...

    signal.connect(receive, sender="crm.Account")
    assert [each.sender_id for each in ours.connections_of(signal)] == [id(Account)], where


def test_relies_on_the_end_of_the_main_thread() -> None:
    """Python waits for other threads after its main thread counts as ended."""
    where = look_at("management/interruption.py", "threading.main_thread().join()")
    code = (
        "import os, threading\n"
        "threading.Thread(target=lambda: (threading.main_thread().join(), os._exit(7)), daemon=True).start()\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=10, check=False).returncode == 7, where


@pytest.mark.django_db
def test_relies_on_copies_of_a_connection() -> None:
    """A copy has settings of its own: our options are not the project's."""
    where = look_at("postgres/own_connections.py", "connections[using].copy()")
    copy: Any = connections["default"].copy()
    copy.settings_dict["OPTIONS"]["application_name"] = "ours"
    assert "application_name" not in connections["default"].settings_dict["OPTIONS"], where
    assert copy.get_connection_params()["application_name"] == "ours", where
    own = look_at("postgres/own_connections.py", "connection.settings_dict = {**settings")
    copy.settings_dict = {**copy.settings_dict, "OPTIONS": {"connect_timeout": 7}}
    assert copy.get_connection_params()["connect_timeout"] == 7, own
    shared = look_at("postgres/held_lock.py", "inc_thread_sharing()")
    copy.inc_thread_sharing()
    assert copy.allow_thread_sharing, shared


@pytest.mark.django_db
def test_relies_on_errors_that_are_wrapped() -> None:
    where = look_at("postgres/side_connection.py", "wrap_database_errors")
    with pytest.raises(OperationalError) as caught, connection.wrap_database_errors:
        raise psycopg.errors.LockNotAvailable("locked")
    assert caught.value.__cause__.sqlstate == "55P03", where  # type: ignore[union-attr]


@pytest.mark.django_db(transaction=True)
def test_relies_on_the_collector() -> None:
    where = look_at("delivery/on_delete.py", "collector.related_objects(")
    for name, expected in (
        ("collect", {"objs", "keep_parents"}),
        ("related_objects", {"related_model", "related_fields", "objs"}),
        ("delete", set()),
    ):
        assert expected <= set(inspect.signature(getattr(Collector, name)).parameters), where
    collector = Collector(using="default", origin=Account())
    assert dict(collector.restricted_objects) == {}, look_at("delivery/on_delete.py", "restricted_objects")
    assert list(inspect.signature(models.CASCADE).parameters)[:4] == ["collector", "field", "sub_objs", "using"], where
    relations = look_at("delivery/on_delete.py", "get_candidate_relations_to_delete(")
    for relation in get_candidate_relations_to_delete(Account._meta):
        assert relation.auto_created and relation.related_model and callable(relation.on_delete), relations


def test_relies_on_what_get_results_of_a_change_list_sets() -> None:
    """Ours replaces it: each attribute that Django's sets for its templates must be set by ours."""
    where = look_at("admin/changes.py", "def get_results")
    from hc_signals.admin.changes import ChangeLogList

    def assigned(function: Any) -> set[str]:
        nodes = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function))))
        return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}

    theirs, found = assigned(ChangeList.get_results), assigned(ChangeLogList.get_results)
    assert theirs and theirs <= found, f"{where}: {sorted(theirs - found)}"


def test_relies_on_converters_as_the_compiler_takes_them() -> None:
    where = look_at("delivery/instances.py", "connection.ops.get_db_converters")
    builder = InstanceBuilder(Account, "default")
    compiler = Account._base_manager.all().query.get_compiler("default")
    columns = [field.get_col(Account._meta.db_table) for field in builder.fields]
    theirs = [(index, each) for index, (found, _) in compiler.get_converters(columns).items() for each in found]
    assert [(index, convert) for index, convert, _ in builder._converters] == theirs, where


def test_relies_on_the_timezone_of_a_connection() -> None:
    where = look_at("db/models/fields.py", "connection.timezone is None")
    assert connections["default"].timezone is not None, where
    with override_settings(USE_TZ=False):
        assert connections["default"].timezone is None, where
    assert connections["default"].timezone is not None, where


def test_relies_on_the_signal_module_without_enums() -> None:
    where = look_at("delivery/project_code.py", "from _signal import getsignal as handler_of")

    def handler(*args: Any) -> None: ...

    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        assert project_code.handler_of(signal.SIGALRM) is project_code.handler_of(signal.SIGALRM), where
        assert not callable(project_code.handler_of(signal.SIGALRM)), where
        signal.signal(signal.SIGALRM, handler)
        assert project_code.handler_of(signal.SIGALRM) is handler, where
    finally:
        signal.signal(signal.SIGALRM, before)


def test_relies_on_original_attrs_of_a_models_meta() -> None:
    where = look_at("db/models/base.py", "original_attrs")
    assert Seen._meta.original_attrs == {}, where  # type: ignore[attr-defined]
    assert "db_table" in Account._meta.original_attrs, where  # type: ignore[attr-defined]


@pytest.mark.django_db(transaction=True)
def test_relies_on_psycopgs_generators() -> None:
    """The bell's lock is given up by a query that is sent and not waited for; its answer is taken later."""
    where = look_at("worker/bell_lock.py", "fetch_many(")
    from psycopg.generators import fetch_many

    raw: Any = connection.copy()
    raw.ensure_connection()
    try:
        raw.connection.pgconn.send_query(b"SELECT 1; SELECT 2")
        raw.connection.pgconn.flush()
        results = raw.connection.wait(fetch_many(raw.connection.pgconn))
        assert [result.status for result in results] == [psycopg.pq.ExecStatus.TUPLES_OK] * 2, where
        assert [result.get_value(0, 0) for result in results] == [b"1", b"2"], where
    finally:
        raw.close()


@pytest.mark.django_db(transaction=True)
def test_relies_on_psycopgs_pipelines() -> None:
    where = look_at("postgres/side_connection.py", "self._pipeline.sync()")
    taken = look_at("postgres/side_connection.py", "pgconn.consume_input()")
    raw: Any = connection.copy()
    raw.ensure_connection()
    try:
        with raw.connection.pipeline() as pipeline:
            cursors = [raw.cursor(), raw.cursor()]
            for number, cursor in enumerate(cursors):
                cursor.execute("SELECT %s::int", [number])
            raw.connection.pgconn.consume_input()
            pipeline.sync()
            assert [cursor.fetchone() for cursor in cursors] == [(0,), (1,)], f"{where}; {taken}"
        idle = look_at("postgres/sessions.py", "raw.pipeline()")
        assert raw.connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE, idle
    finally:
        raw.close()


def test_relies_on_loaders_of_psycopgs_adapters() -> None:
    where = look_at("postgres/dates.py", "psycopg.adapters.get_loader")
    info = psycopg.adapters.types["date"]
    loader = psycopg.adapters.get_loader(info.oid, psycopg.pq.Format.TEXT)
    assert loader is not None, where
    with pytest.raises(psycopg.DataError):
        loader(info.oid, None).load(b"infinity")


def test_relies_on_how_multi_table_children_are_saved() -> None:
    where = look_at("db/models/inheritance.py", "def _save_parents")
    assert list(inspect.signature(models.Model._save_parents).parameters)[1:4] == ["cls", "using", "update_fields"], (
        where
    )
    where = look_at("db/models/inheritance.py", "def _prepare_related_fields_for_save")
    parameters = inspect.signature(models.Model._prepare_related_fields_for_save).parameters
    assert list(parameters) == ["self", "operation_name", "fields"], where
    where = look_at("db/models/inheritance.py", "def _check_parent_chain")
    assert list(inspect.signature(DeferredAttribute._check_parent_chain).parameters) == ["self", "instance"], where
    where = look_at("db/models/inheritance.py", "get_path_to_parent")
    (step,) = Options.get_path_to_parent(CompoundModel._meta, SFObjectModel)
    assert step.join_field == CompoundModel._meta.pk and step.join_field.primary_key, where


def test_relies_on_how_the_admin_shows_choices() -> None:
    where = look_at("db/models/multi_picklist.py", "def flatchoices")
    field = Everything._meta.get_field("multi_picklist")
    assert field.flatchoices == [("a", "A"), ("b", "B")] and not field.flatchoices, where
    assert display_for_field(["a", "b"], field, "-") == "a, b", where
