"""Every block of code in the docs is run, or a hidden comment says why it is not."""

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, get_commands, load_command_class

from hc_signals.db import models as hc_models
from tests.docs_project import Project
from tests.pages import BLOCKS, ROOT, TEXT, Block, commands
from tests.test_api import FakeHeroku

TRIED_BY = {
    "README.md": "tests/test_docs_code.py",
    "ecosystem.md": "tests/ecosystem/page.py",
    "index.md": "tests/test_docs_code.py",
    "other-mirrors.md": "tests/test_other_mirrors.py",
    "security.md": "tests/test_least_privilege.py",
    "start.md": "tests/test_ten_minutes.py",
    "testing.md": "tests/test_kit.py",
    "trigger-log.md": "tests/test_triggerlog.py",
    "two-orgs.md": "tests/test_orgs.py",
    "types.md": "tests/test_types.py",
    "your-app.md": "tests/test_ten_minutes.py",
}
"""Pages whose blocks of Python or SQL have their own test."""

NOT_RUN = {"heroku.md": 1}
"""Number of blocks of a page that cannot be run here."""

MAY_SCROLL = ("parity.md",)
"""Pages with a program of one line that nothing can wrap."""

SHOWN = ("", "text")
"""Languages of blocks that show output."""

DIRECTIVES = ("{eval-rst}", "{toctree}", "{include} ../CHANGELOG.md")

# -- which blocks there are --------------------------------------------------------------------------------------------


def test_pages_count_their_unrun_blocks() -> None:
    counted: dict[str, int] = {}
    for block in BLOCKS:
        if block.marker.startswith("not run: "):
            counted[block.page] = counted.get(block.page, 0) + 1
    assert counted == NOT_RUN


def test_blocks_have_a_tested_kind() -> None:
    for block in BLOCKS:
        assert block.language in ("python", "sh", "sql", *SHOWN, *DIRECTIVES), block
        assert block.language != "sql" or block.page in TRIED_BY, block


@pytest.mark.parametrize(("page", "test"), TRIED_BY.items())
def test_pages_tested_elsewhere_have_their_test(page: str, test: str) -> None:
    assert page.removesuffix(".md") in (ROOT / test).read_text(encoding="utf-8")


def test_blocks_run_elsewhere_name_their_test() -> None:
    for block in BLOCKS:
        if block.marker.startswith("run by: "):
            assert f'"{block.page}"' in (ROOT / block.marker.removeprefix("run by: ")).read_text(encoding="utf-8")


def test_shown_file_equals_the_file() -> None:
    shown = [block for block in BLOCKS if block.marker.startswith("file: ")]
    assert shown
    for block in shown:
        file = (ROOT / block.marker.removeprefix("file: ")).read_text(encoding="utf-8")
        assert block.code == file.replace("example.wsgi", "shop.wsgi"), block.marker  # the page's project is start.md's


@pytest.mark.parametrize(("page", "count"), [("README.md", 3), ("index.md", 1)])
def test_first_page_shows_code_of_the_start_page(page: str, count: int) -> None:
    (block,) = [block for block in BLOCKS if block.page == page and block.language == "python"]
    tried = "\n".join(block.code for block in BLOCKS if block.page == "start.md" and block.language == "python")
    files = re.split(r"^(?=# \S+\.py)", block.code, flags=re.M)[1:]
    assert len(files) == count
    for file in files:
        assert file.strip() in tried, file


def test_landing_page_shows_the_output_of_the_start_page() -> None:
    shown = {page: [block.code for block in BLOCKS if (block.page, block.language) == (page, "text")] for page in TEXT}
    (printed,) = shown["index.md"]
    assert printed in shown["start.md"]


CODE_WIDTH = 90
"""Characters of a line that the site shows beside its two columns on a laptop."""


def test_lines_of_code_fit_the_page() -> None:
    long = [
        f"{block.page}: {line}"
        for block in BLOCKS
        if block.language in ("python", "sh", "sql") and block.page not in MAY_SCROLL
        for line in block.code.splitlines()
        if len(line) > CODE_WIDTH
    ]
    assert not long


# -- Python ------------------------------------------------------------------------------------------------------------

SAID = {
    "mappings.md": ["connection 'one': state BROKEN: an unknown state"],
    "parity.md": ["""{"problems": ["connection 'one': state BROKEN: an unknown state"""],
    "receivers.md": ["Account ()", "Acme was Energy", "task: UPDATE"],
    "replay-and-backfill.md": [
        "a letter to Acme Ltd",
        "crm.receivers.send_letter: 1 call(s), 0 failed",
        "Called without reading event.dry_run",
        "  crm.receivers.greet (3 of 3 calls)",
        "letters after the dry run: 1",
    ],
    "reloads.md": ["Account was reloaded: {'cleared': 3, 'unchanged': 3"],
    "signals.md": [
        "Acme Ltd ('name',) {'name': 'Acme'}",
        "to index: ['001000000000001AAA'",
        "crm.Account may have changed since None: capture_failed",
    ],
}
"""Lines that the receivers of a page print while a test plays Salesforce."""

AFTER = {
    "parity.md": "from crm.views import heroku_connect\nprint(heroku_connect(None).content.decode())",
    "replay-and-backfill.md": "from contextlib import redirect_stdout\n"
    "from io import StringIO\n"
    "from django.core.management import call_command\n"
    "output = StringIO()\n"
    "with redirect_stdout(output):\n"
    "    call_command('hc_replay', '--dry-run', '--since', '1h', '--yes')\n"
    "print(output.getvalue())\n"
    "print('letters after the dry run:', 1 + output.getvalue().count('letter to'))",
    "receivers.md": "from django_tasks_db.models import DBTaskResult\n"
    "print('task:', DBTaskResult.objects.get().args_kwargs['kwargs']['change_type'])",
}
"""Further expressions to check after a page was played, with their results."""

RUN_HERE = sorted({block.page for block in BLOCKS if block.language == "python"} - set(TRIED_BY))


@pytest.fixture(scope="module")
def start_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project of docs/start.md, created once."""
    project = Project(tmp_path_factory.mktemp("start"), "hc_signals_start")
    project.start()
    yield project
    project.drop()


@pytest.mark.usefixtures("heroku_api")
@pytest.mark.parametrize("page", RUN_HERE)
def test_python_of_a_page_runs_in_the_start_project(page: str, start_project: Project, tmp_path: Path) -> None:
    """Write the page's files in order, run the blocks without a file name, then play Salesforce."""
    project = start_project.copy(tmp_path, "hc_signals_page")
    try:
        printed = project.play([block for block in BLOCKS if block.page == page], AFTER.get(page, ""))
    finally:
        project.drop()
    for line in SAID.get(page, []):
        assert line in printed, printed


READ = """
import datetime
from crm.models import Account, Job
from django.db import connection
from hc_signals.db import models as hc_models
from hc_signals.testing import HerokuConnect

heroku = HerokuConnect()
[account] = heroku.insert(Account, name="Acme")
own = [field for field in Job._meta.fields if hasattr(field, "sf_field_name") and "__c" in field.sf_field_name]
values = {field.name: "x" for field in own if field.get_internal_type() in ("CharField", "TextField")}
values |= dict.fromkeys(("is_urgent", "hours", "price", "discount", "head_count"), 1) | {
    "name": "Roof", "stage": "New", "skills": ["wood", "steel"], "external_id": "0" * 32, "account": account,
    "due_on": datetime.date(2026, 1, 2), "started_at": datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
    "opens_at": datetime.time(8), "place_latitude": 50.1, "place_longitude": 8.6,
}
[sfid] = heroku.insert(Job, **values)
heroku.update(Job, sfid, parent=sfid)
job = Job.objects.get(sf_id=sfid)
for name in [field.name for field in Job._meta.fields] + ["place"]:
    kinds = " ".join(kind.__name__ for kind in type(getattr(job, name)).__mro__)
    print("field:", name, kinds, sep="|")
for field in Job._meta.fields:
    print("column:", type(field).__name__, field.db_type(connection), field.name, field.column, sep="|")
"""
"""Reads a Job of docs/models.md with all its fields filled."""


def test_table_of_field_classes_is_correct(start_project: Project, tmp_path: Path) -> None:
    """The page lists every class, in the order of its example, with the column and the type of the value."""
    project = start_project.copy(tmp_path, "hc_signals_page")
    try:
        printed = project.play([b for b in BLOCKS if b.page == "models.md" and b.file], READ)
    finally:
        project.drop()
    kinds = dict(line.split("|")[1:] for line in printed.splitlines() if line.startswith("field:"))
    columns = {line.split("|")[1]: line.split("|")[2:] for line in printed.splitlines() if line.startswith("column:")}
    table = TEXT["models.md"].split("| class | Salesforce type |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    rows = [[cell.strip(" `") for cell in row.split("|")[1:5]] for row in table]
    for name, _, column, python in rows:
        if name == "Geolocation":
            assert python in kinds["place"].split(), kinds["place"]
            assert "|place__latitude__s\n" in printed and "|place__longitude__s\n" in printed
            continue
        kind, field, _ = columns[name]
        assert re.fullmatch(re.escape(column).replace("max_length", r"\d+"), kind), (name, kind)
        assert {"the model": "Model"}.get(python, python) in kinds[field].split(), (name, kinds[field])
    public = {name for name, value in vars(hc_models).items() if isinstance(value, type)}
    assert {row[0] for row in rows} == {name for name in public if not name.endswith(("Mixin", "Model", "Base"))}


@pytest.mark.parametrize("page", TEXT)
def test_no_page_imports_the_example(page: str) -> None:
    """Readers have the project of docs/start.md, not our example."""
    for block in BLOCKS:
        assert block.page != page or "example." not in block.code.replace("example.com", ""), block.code


@pytest.fixture
def heroku_api(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Heroku Connect's API, with a connection in an unknown state."""
    import threading

    with FakeHeroku() as server:
        server.states = ["BROKEN"]
        monkeypatch.setenv("HEROKU_AUTH_TOKEN", "a-token")
        monkeypatch.setenv("HEROKU_APP_NAME", "my-app")
        monkeypatch.setenv("HEROKU_CONNECT_API_ENDPOINT", server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# -- commands ----------------------------------------------------------------------------------------------------------

MAKE = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def manage(arguments: list[str]) -> None:
    """Parse the words after manage.py with the command's own parser."""
    command, *rest = arguments
    parser = load_command_class(get_commands()[command], command).create_parser("manage.py", command)
    parser.parse_args(rest)


def python(arguments: list[str]) -> None:
    if arguments[:2] == ["-m", "pytest"]:
        assert all((ROOT / argument).exists() for argument in arguments[2:])
    elif arguments[0] == "-m":
        assert arguments[1] == "venv"
    else:
        assert arguments[0] == "manage.py"
        manage(arguments[1:])


def make(arguments: list[str]) -> None:
    for argument in arguments:
        variable, is_variable, _ = argument.partition("=")
        if is_variable:
            assert f"$({variable})" in (ROOT / "Makefile").read_text(encoding="utf-8"), argument
        else:
            assert argument in MAKE, argument


def pip(arguments: list[str]) -> None:
    assert arguments[0] == "install"
    for argument in arguments[1:]:
        for extra in re.findall(r"^hc-signals\[(.*)\]$", argument):
            assert extra in EXTRAS, extra


def docker(arguments: list[str]) -> None:
    """Check that the compose file has the services; the tests need no container engine."""
    import yaml

    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    assert arguments[0] == "compose"
    action, rest = arguments[1], [each for each in arguments[2:] if not each.startswith("--")]
    assert action in ("up", "exec", "logs", "restart", "down")
    if rest:
        assert rest[0] in services, rest
        assert action != "exec" or rest[1] == "python"
    if action == "exec":
        python(rest[2:])


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "python": python,
    "python3": python,
    ".venv/bin/python": python,
    "make": make,
    "pip": pip,
    "docker": docker,
    "django-admin": manage,
    "export": lambda arguments: None,
    ".": lambda arguments: None,
}


def is_known(command: str) -> None:
    words = shlex.split(command, comments=True)
    if "|" in words:  # what reads the output is not ours
        words = words[: words.index("|")]
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    assert words[0] in PROGRAMS, command
    try:
        PROGRAMS[words[0]](words[1:])
    except (SystemExit, CommandError):
        pytest.fail(f"is not understood: {command}")


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "sh"], ids=lambda block: block.page)
def test_commands_parse(block: Block) -> None:
    if not block.marker.startswith(("not run: ", "run by: ")):
        for command in commands(block):
            is_known(command)


def test_heroku_commands_parse() -> None:
    for block in BLOCKS:
        for command in re.findall(r"^heroku run (.*)$", block.code, re.M):
            is_known(command)
    for line in (ROOT / "example" / "Procfile").read_text(encoding="utf-8").splitlines():
        for command in line.partition(": ")[2].split(" && "):
            if not command.startswith("gunicorn"):
                is_known(command)


@pytest.mark.parametrize("page", TEXT)
def test_commands_in_sentences_parse(page: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", TEXT[page], flags=re.M | re.S)
    for span in re.findall(r"`([^`]+)`", prose):
        words = shlex.split(span) if re.match(r"(python )?manage\.py |hc_(?!signals_)\w+ ", span) else []
        words = words[words.index("manage.py") + 1 :] if "manage.py" in words else words
        if len(words) < 2 or "…" in span or " | " in span:  # only its name, or a list of what can follow
            continue
        try:
            manage(words)
        except (SystemExit, CommandError) as error:
            # `hc_backfill --receiver` speaks of an option and leaves out what must go with it
            assert "required" in str(error) or "expected" in str(error), f"is not understood: {span}"
            assert {word for word in words if word.startswith("--")} <= options(words[0]), span


def options(command: str) -> set[str]:
    """Return the options of a command and of its subcommands."""
    parsers = [load_command_class(get_commands()[command], command).create_parser("manage.py", command)]
    for action in parsers[0]._actions:
        parsers += getattr(action, "_name_parser_map", {}).values()
    return {option for parser in parsers for action in parser._actions for option in action.option_strings}


# -- files of the example ----------------------------------------------------------------------------------------------


def test_app_json_matches_the_procfile() -> None:
    app = json.loads((ROOT / "example" / "app.json").read_text(encoding="utf-8"))
    lines = (ROOT / "example" / "Procfile").read_text(encoding="utf-8").splitlines()
    processes = {line.partition(":")[0] for line in lines}
    assert set(app["formation"]) == processes - {"release"}
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "example" / "example").rglob("*.py"))
    for variable in set(app["env"]) - {"DISABLE_COLLECTSTATIC", "PGSSLMODE"}:  # Heroku reads one, libpq the other
        assert f'"{variable}"' in source, variable
