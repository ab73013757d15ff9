"""hc_replay --dry-run: receivers are called, everything is rolled back, and a report says what they did."""

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.contrib.django.task import DjangoTask
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.db.models.signals import post_save
from django_tasks import task
from django_tasks_db.models import DBTaskResult
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.capture.install import install_capture
from hc_signals.delivery.listeners import APPLY_ON_DELETE
from hc_signals.enqueueing import enqueue_on_change
from hc_signals.events import ChangeEvent, in_dry_run
from hc_signals.models import Change, Delivery, Position
from hc_signals.receivers import on_change
from hc_signals.testing import HerokuConnect
from tests.conftest import BARE, as_the_app, deliver, running_crew
from tests.sfdc.models import Everything, Note, User
from tests.test_worker_process import wait_until

LEDGER = "example.crm.receivers.keep_ledger"


class Receiver:
    """A receiver that does ``work`` with its event."""

    def __init__(self, work: Callable[[Any], Any] = lambda event: None) -> None:
        self.work = work
        self.events: list[Any] = []

    def __call__(self, event: Any = None, events: Any = (), **kwargs: Any) -> None:
        self.events.append(event or list(events))
        self.work(event or events)


PATH = f"{__name__}.Receiver"


@pytest.fixture
def users(captured: HerokuConnect) -> list[str]:
    """Three changes of one user, which no receiver has got yet; return the record's sfid."""
    (sfid,) = captured.insert(User, username="a")
    captured.update(User, sfid, username="b")
    captured.update(User, sfid, username="c")
    deliver()
    Seen.objects.all().delete()
    return [sfid]


@pytest.fixture
def listen(users: list[str], connect: Any) -> Callable[..., Receiver]:
    """Connect a Receiver to a signal of User."""

    def add(work: Callable[[Any], Any] = lambda event: None, on: Any = signals.record_changed) -> Receiver:
        found = Receiver(work)
        connect(on, found, User)
        return found

    return add


@pytest.fixture
def second_database(bare_database: Any) -> Iterator[str]:
    """Return the alias of another database, which has a table ``there``."""
    bare_database.execute("CREATE TABLE there (id int)")
    bare_database.commit()
    connections.settings["second"] = {**connections.settings["default"], "NAME": BARE}
    connections["second"].connect()  # Django's tests allow no ensure_connection() of an alias that they do not know
    yield "second"
    connections["second"].close()
    del connections["second"], connections.settings["second"]


def dry_run(*arguments: str, receiver: str = PATH, **options: Any) -> str:
    """Run the command; return its output of both streams."""
    out = io.StringIO()
    chosen = ["--receiver", receiver] if receiver else ["--yes"]
    since = [] if "--against" in arguments or "--from" in arguments else ["--since", "1h"]
    call_command("hc_replay", "--dry-run", *since, *chosen, *arguments, stdout=out, stderr=out, **options)
    return out.getvalue()


def saved(tmp_path: Path, *arguments: str, **options: Any) -> Any:
    dry_run("--save", str(tmp_path / "report.json"), *arguments, **options)
    return json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))


def sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def everything_stored() -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM public.hc_signals_heard")
        (heard,) = cursor.fetchone()
    kept = [Change.objects.count(), Position.objects.count(), heard, Delivery.objects.count()]
    return [*kept, Seen.objects.count(), Note.objects.count()]


# -- the report --------------------------------------------------------------------------------------------------------


def test_report_counts_and_nothing_is_stored(listen: Any, users: list[str]) -> None:
    def write(event: Any) -> None:
        Note.objects.create(text=event.instance.username)
        Note.objects.filter(text="b").update(text="x")
        if event.instance.username == "c":
            raise KeyError("secret")

    receiver = listen(write)
    before = everything_stored()
    output = dry_run()
    assert everything_stored() == before
    assert [event.instance.username for event in receiver.events] == ["a", "b", "c"]
    assert "Dry run of 3 change(s): 1 CREATE, 2 UPDATE." in output
    assert f"{PATH}: 3 call(s), 1 failed" in output
    assert "  1 failed: KeyError at tests/test_dry_run.py:" in output
    assert f"for example sfdc.User {users[0]}, change {receiver.events[2].replay_id}" in output
    assert "  public.sfdc_note: 2 inserted, 1 updated\n" in output, "without the writes of the failed call"
    assert "  6 queries, at most 2 in one call" in output
    assert "secret" not in output
    assert deliver() == 0


def test_values_and_tracebacks_are_shown_if_asked_for(listen: Any) -> None:
    def fail(event: Any) -> None:
        raise ValueError("the secret\nis long")

    listen(fail)
    assert "    the secret\n" in dry_run("--values")
    output = dry_run(verbosity=2)
    assert "in fail" in output and 'raise ValueError("the secret' in output, "the line of the source"
    assert "\n    the secret" not in output


def test_all_receivers_are_tried_after_a_confirmation(listen: Any) -> None:
    listen()
    with pytest.raises(CommandError, match="or say --yes"):
        call_command("hc_replay", "--dry-run", "--since", "1h", stderr=io.StringIO())
    output = dry_run("--model", "sfdc.User", receiver="")
    assert f"{PATH}: 3 call(s)" in output and f"{LEDGER}: 3 call(s)" in output
    assert "public.crm_seen: 3 inserted" in output
    assert Seen.objects.count() == 0
    assert APPLY_ON_DELETE not in output


def test_rows_of_triggers_partitions_and_savepoints_count(listen: Any, tmp_path: Path) -> None:
    sql(
        "CREATE TABLE public.parted (id int) PARTITION BY RANGE (id);"
        "CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE public.parted_2 PARTITION OF public.parted FOR VALUES FROM (10) TO (20);"
        "CREATE FUNCTION public.copy_note() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO public.parted VALUES (1), (11); RETURN NULL; END $$;"
        "CREATE TRIGGER copy AFTER INSERT ON public.sfdc_note FOR EACH ROW EXECUTE FUNCTION public.copy_note()"
    )

    def write(event: Any) -> None:
        Note.objects.create(text="x")
        try:
            with transaction.atomic():
                Note.objects.create(text="y")
                raise ValueError
        except ValueError:
            pass
        Note.objects.filter(text="x").delete()

    listen(write)
    try:
        (written,) = {json.dumps(each["written"]) for each in saved(tmp_path)["receivers"].values()}
    finally:
        sql("DROP TRIGGER copy ON public.sfdc_note; DROP FUNCTION public.copy_note; DROP TABLE public.parted")
    assert json.loads(written) == {
        "public.parted": {"inserted": 12, "updated": 0, "deleted": 0},
        "public.sfdc_note": {"inserted": 6, "updated": 0, "deleted": 3},
    }


def test_errors_are_grouped_and_quote_no_value(listen: Any, tmp_path: Path) -> None:
    def fail(event: Any) -> None:
        if event.change_type == "CREATE":
            sql("SELECT 'secret'::int")
        raise ValueError(f"bad {event.instance.username} secret")

    listen(fail)
    failures = saved(tmp_path)["receivers"][PATH]["failures"]
    assert sorted((each["count"], key) for key, each in failures.items()) == [
        (1, "DataError: InvalidTextRepresentation [22P02]"),
        (2, "ValueError at tests/test_dry_run.py fail"),
    ]
    assert "secret" not in (tmp_path / "report.json").read_text(encoding="utf-8")
    failures = saved(tmp_path, "--values")["receivers"][PATH]["failures"]
    assert failures["ValueError at tests/test_dry_run.py fail"]["message"] == "bad b secret"


def test_filtered_changes_are_no_calls(users: list[str], disconnected: None) -> None:
    @on_change(User, fields=["username"], types=["UPDATE"], to={"username": "b"})
    def to_b(**kwargs: Any) -> None:
        pass

    name = f"{__name__}.test_filtered_changes_are_no_calls.<locals>.to_b"
    assert f"{name}: 1 call(s), 0 failed, 1 more change(s) did not match its filters" in dry_run(receiver=name)


def test_bulk_receivers_get_a_page_and_async_ones_are_called(users: list[str], listen: Any, connect: Any) -> None:
    bulk = listen(on=signals.records_changed)
    asked = []

    async def slow(event: Any, **kwargs: Any) -> None:
        asked.append(event.dry_run)
        await Note.objects.acreate(text="x")

    connect(signals.record_updated, slow, User)
    output = dry_run("--model", "sfdc.User", receiver="")
    assert [[event.change_type for event in events] for events in bulk.events] == [["CREATE", "UPDATE", "UPDATE"]]
    assert [event.dry_run for event in bulk.events[0]] == [True] * 3
    assert asked == [True, True]
    assert "<locals>.slow: 2 call(s), 0 failed\n  public.sfdc_note: 2 inserted" in output
    assert not Note.objects.exists()


def test_receivers_of_one_change_see_each_other(listen: Any, connect: Any, users: list[str]) -> None:
    """The writes of one change are rolled back before the next one."""
    seen: list[int] = []

    def count(**kwargs: Any) -> None:
        seen.append(Note.objects.count())

    listen(lambda event: Note.objects.create(text="x"))
    connect(signals.record_changed, count, User)
    dry_run("--model", "sfdc.User", receiver="")
    assert seen == [1, 1, 1]


# -- event.dry_run -----------------------------------------------------------------------------------------------------


def test_report_names_receivers_that_do_not_ask(listen: Any, connect: Any, settings: Any) -> None:
    settings.HC_SIGNALS = {"DJANGO_SIGNALS": True}
    listen(lambda event: event.dry_run)

    def careless(event: Any, **kwargs: Any) -> None:
        repr(event)

    def saves(instance: Any, created: bool, **kwargs: Any) -> None:
        if not created:
            in_dry_run()

    connect(signals.record_changed, careless, User)
    connect(post_save, saves, User)
    _, _, unasked = dry_run("--model", "sfdc.User", receiver="").partition("Called without reading event.dry_run")
    assert f"{PATH} " not in unasked
    assert ".careless (3 of 3 calls)\n" in unasked
    assert ".saves (1 of 3 calls; it gets no event: use hc_signals.events.in_dry_run())" in unasked


def test_events_know_that_they_are_of_a_dry_run(listen: Any, captured: HerokuConnect, settings: Any) -> None:
    settings.HC_SIGNALS = {"RELOAD_AWARE": False}
    install_capture(User, "default")
    receiver = listen()
    gap = listen(on=signals.gap_detected)
    as_the_app("SET xmlbinary = 'hex'; TRUNCATE salesforce.user; SET xmlbinary = 'base64'")
    deliver()
    first, of_gap = list(receiver.events), list(gap.events)
    assert [event.dry_run for event in (*first, *of_gap)] == [False]
    output = dry_run("--model", "sfdc.User", receiver="")
    assert f"{PATH}: 4 call(s)" in output
    again = receiver.events[len(first) :] + gap.events[1:]
    assert [(event.dry_run, event.replayed) for event in again] == [(True, True)] * 4
    assert not hasattr(again[-1], "nothing")
    assert not in_dry_run()
    event = ChangeEvent(
        **dict.fromkeys(("change_type", "change_origin", "entity_name", "transaction_key", "replay_id"), ""),
        **{"record_id": None, "record_key": None, "sequence_number": 1, "captured_at": None, "event_id": ""},
        dry_run=True,
    )
    assert event.dry_run


# -- what must not happen ----------------------------------------------------------------------------------------------


def test_commit_hooks_do_not_run(listen: Any, second_database: str) -> None:
    """Hooks of every kind and database: robust ones, those of Celery, those of another database."""
    ran: list[str] = []
    app = Celery("tests", task_cls=DjangoTask, broker="memory://", set_as_current=False)

    @app.task
    def celery_job() -> None: ...

    celery_job.delay = lambda *args, **kwargs: ran.append("celery")

    def work(event: Any) -> None:
        transaction.on_commit(lambda: ran.append("hook"))
        transaction.on_commit(lambda: ran.append("robust"), robust=True)
        transaction.on_commit(lambda: ran.append("other"), using=second_database)
        with transaction.atomic():
            transaction.on_commit(lambda: ran.append("nested"))
        celery_job.delay_on_commit()

    listen(work)
    assert "3 call(s), 0 failed" in dry_run()
    assert ran == []


def test_writes_to_another_database_are_rolled_back(listen: Any, second_database: str) -> None:
    def work(event: Any) -> None:
        with connections[second_database].cursor() as cursor:
            cursor.execute("INSERT INTO there VALUES (1)")
            if event.instance.username == "b":
                with transaction.atomic(using=second_database):
                    cursor.execute("SELECT 1/0")

    listen(work)
    output = dry_run()
    assert "3 call(s), 1 failed" in output
    assert f"{second_database}: public.there: 2 inserted" in output
    with connections[second_database].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM there")
        assert cursor.fetchone() == (0,)


def test_unreachable_database_is_named(listen: Any, second_database: str) -> None:
    listen()
    gone: Any = connections[second_database]
    gone.close()
    gone.settings_dict |= {"HOST": "127.0.0.1", "PORT": "1"}
    gone.ensure_connection = gone.wrap_database_errors(gone.connect)
    assert f"The database {second_database!r} could not be reached" in dry_run()


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize(
    "bad", ["ROLLBACK", "COMMIT", "close", "SET statement_timeout = '1min'", "SELECT nothing", "deferred"]
)
def test_bad_receivers_fail_and_the_next_one_is_called(
    listen: Any, connect: Any, settings: Any, bad: str, atomic: bool, users: list[str]
) -> None:
    settings.HC_SIGNALS = {"ATOMIC": atomic}

    def work(event: Any) -> None:
        Note.objects.create(text="x")
        if bad == "close":
            connection.close()
        elif bad == "deferred":
            sql("INSERT INTO public.sfdc_deferred VALUES (0)")
        else:
            connection.connection.execute(bad)

    listen(work)
    called: list[str] = []
    connect(signals.record_updated, lambda event, **kwargs: called.append(event.instance.username), User)
    if bad == "deferred":
        sql("CREATE TABLE public.sfdc_deferred (id int REFERENCES public.sfdc_note (id) DEFERRABLE INITIALLY DEFERRED)")
    try:
        output = dry_run("--model", "sfdc.User", receiver="")
    finally:
        sql("DROP TABLE IF EXISTS public.sfdc_deferred")
    (of_receiver,) = [part for part in output.split("\n\n") if part.startswith(PATH)]
    assert "3 failed" in of_receiver, output
    assert "sfdc_note" not in of_receiver
    assert list(dict.fromkeys(called)) == ["b", "c"], "a change is sent again if its transaction is lost"
    assert everything_stored()[3:] == [0, 0, 0]


@task
def job(model: str, record_id: str, change_type: str, changed_fields: list[str], event_id: str) -> None: ...


def test_enqueued_tasks_stay_out(users: list[str], disconnected: None) -> None:
    enqueue_on_change(User, job)
    output = dry_run("--model", "sfdc.User", receiver="")
    assert ".job: 3 call(s), 0 failed" in output
    assert ".job (" not in output, "it asks"
    assert not DBTaskResult.objects.exists()


# -- beside a worker ---------------------------------------------------------------------------------------------------


def test_worker_is_never_ended_by_a_deadlock(listen: Any, captured: HerokuConnect, connect: Any) -> None:
    """The worker has the first row and waits for the second one, the dry run the other way round."""
    rows = [Note.objects.create(text=text) for text in "ab"]
    is_worker = threading.Event()
    met = threading.Barrier(2, timeout=60)
    errors: list[BaseException] = []
    tries: list[str] = []

    def lock(event: Any, **kwargs: Any) -> None:
        worker = not event.dry_run
        first, second = rows if worker else reversed(rows)
        tries.append("worker" if worker else "dry run")
        Note.objects.filter(pk=first.pk).update(text="x")
        if len(tries) <= 2:
            met.wait()
        try:
            Note.objects.filter(pk=second.pk).update(text="x")
        except Exception as error:
            if worker:
                errors.append(error)
            raise

    connect(signals.record_created, lock, Account)
    captured.create(Account)
    with running_crew():
        output = dry_run("--model", "crm.Account", receiver=f"{lock.__module__}.{lock.__qualname__}")
        wait_until(lambda: not is_worker.is_set() and tries.count("worker") >= 1)
    assert errors == []
    assert tries.count("worker") == 1
    assert tries.count("dry run") >= 2, "it has given way"
    assert "1 call(s), 0 failed" in output
    assert not Delivery.objects.exists()


def test_locks_are_held_for_one_change(listen: Any, captured: HerokuConnect) -> None:
    """While the second change is sent, another session writes the row that the first one wrote."""
    note = Note.objects.create(text="")
    other = connection.copy()

    def work(event: Any) -> None:
        if event.instance.username == "a":
            Note.objects.filter(pk=note.pk).update(text="x")
        elif event.instance.username == "b":
            with other.cursor() as cursor:
                cursor.execute("UPDATE public.sfdc_note SET text = 'mine' WHERE id = %s", [note.pk])

    listen(work)
    try:
        assert "0 failed" in dry_run()
    finally:
        other.close()
    note.refresh_from_db()
    assert note.text == "mine"


# -- the command -------------------------------------------------------------------------------------------------------


def test_interrupted_dry_run_reports_so_far(listen: Any, tmp_path: Path) -> None:
    receiver = listen(lambda event: os.kill(os.getpid(), signal.SIGINT))
    out, file = io.StringIO(), tmp_path / "report.json"
    with pytest.raises(SystemExit) as exit_:
        arguments = ["--dry-run", "--since", "1h", "--receiver", PATH, "--save", str(file)]
        call_command("hc_replay", *arguments, stdout=out, stderr=out)
    assert exit_.value.code == 130
    assert len(receiver.events) == 1
    assert "Dry run of 1 change(s)" in out.getvalue() and f"{PATH}: 1 call(s), 0 failed" in out.getvalue()
    assert json.loads(file.read_text(encoding="utf-8"))["last"] == receiver.events[0].replay_id
    receiver.work = lambda event: None
    assert "no difference besides the time" in dry_run("--against", str(file))
    assert len(receiver.events) == 2, "the changes of the file"


def test_comparison_names_every_difference(listen: Any, tmp_path: Path, captured: HerokuConnect) -> None:
    file = str(tmp_path / "before.json")
    receiver = listen(lambda event: Note.objects.create(text="x"))
    dry_run("--save", file, "--model", "sfdc.User", receiver="")
    report = json.loads(Path(file).read_text(encoding="utf-8"))
    report["receivers"]["shop.gone"] = report["receivers"].pop(LEDGER)
    Path(file).write_text(json.dumps(report), encoding="utf-8")
    captured.insert(User, username="later")

    def work(event: Any) -> None:
        Note.objects.create(text="x")
        Note.objects.update(text="y")
        if event.instance.username == "c":
            raise LookupError(event.instance.username)

    receiver.work = work
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"^1 error\(s\) are new or more frequent than in .*before.json\.$") as error:
        call_command("hc_replay", "--dry-run", "--against", file, "--yes", stdout=out, stderr=io.StringIO())
    assert error.value.returncode == 1
    said = out.getvalue().partition("Compared with ")[2]
    assert f"  {LEDGER}\n    new          3 calls\n" in said
    assert "  shop.gone\n    gone         it is not connected any more\n" in said
    assert f"  {PATH}\n    new error    LookupError at tests/test_dry_run.py:" in said
    assert ": 0 → 1 calls, for example sfdc.User " in said
    assert "    writes       public.sfdc_note: 3 → 2 inserted, 0 → 2 updated\n" in said
    assert "    queries      1.0 → 2.0 a call (2.00 times)\n" in said
    assert "    time         p50 " in said
    assert "later" not in said and "number of changes" not in said


def test_comparison_of_the_same_code_exits_zero(listen: Any, tmp_path: Path) -> None:
    def fail(event: Any) -> None:
        raise LookupError(event.instance.username)

    file = str(tmp_path / "before.json")
    receiver = listen(fail)
    dry_run("--save", file)
    assert "no difference besides the time" in dry_run("--against", file)
    receiver.work = lambda event: None
    assert "gone error   LookupError at tests/test_dry_run.py:" in dry_run("--against", file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say --since or --from"),
        (["--since", "1h", "--save", "x.json"], "--save needs --dry-run"),
        (["--since", "1h", "--values"], "--values needs --dry-run"),
        (["--against", "x.json"], "--against needs --dry-run"),
        (["--dry-run", "--against", "x.json", "--model", "sfdc.User"], "leave out --until and --model"),
    ],
)
def test_wrong_usage_exits_two(arguments: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said) as error:
        call_command("hc_replay", *arguments)
    assert error.value.returncode == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("x", "holds no JSON; expected"),
        ("[]", "has the format None; expected 1"),
        ('{"hc_signals_dry_run": 2}', "has the format 2; expected 1"),
        ('{"hc_signals_dry_run": 1, "changes": 0}', "without a change"),
    ],
)
def test_unusable_file_is_an_error(captured: HerokuConnect, tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "x.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(CommandError, match=said):
        dry_run("--against", str(file))
    with pytest.raises(CommandError, match="cannot be written to"):
        dry_run("--save", str(tmp_path / "no" / "x.json"), receiver=LEDGER)


def test_uncounted_writes_are_said(listen: Any) -> None:
    sql("SET track_counts = off")
    listen(lambda event: Note.objects.create(text="x"))
    try:
        assert "Written rows were not counted: the server's setting track_counts is off." in dry_run()
    finally:
        sql("RESET track_counts")
    assert "not counted" not in dry_run()


def test_everything_model_is_tried(captured: HerokuConnect, connect: Any) -> None:
    received: list[Any] = []
    connect(signals.record_created, lambda event, **kwargs: received.append(event.dry_run), Everything)
    captured.create(Everything, 2)
    assert "2 CREATE" in dry_run("--model", "sfdc.Everything", receiver="")
    assert received == [True, True]
    assert deliver() == 2, "they are still to be delivered"
    assert received == [True, True, False, False]
