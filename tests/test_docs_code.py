"""Every block of code in the docs is run, or says in a comment that no reader sees why it is not."""

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, get_commands, load_command_class

from tests.docs_project import Project
from tests.pages import BLOCKS, ROOT, TEXT, Block, commands
from tests.test_api import FakeHeroku

TRIED_BY = {
    "README.md": "tests/test_docs_code.py",
    "security.md": "tests/test_least_privilege.py",
    "start.md": "tests/test_ten_minutes.py",
    "testing.md": "tests/test_kit.py",
    "trigger-log.md": "tests/test_triggerlog.py",
}
"""Pages whose blocks of Python or SQL have a test of their own, where what they say is looked at."""

NOT_RUN = {"heroku.md": 1}
"""How many blocks of a page cannot be run here."""

SHOWN = ("", "text")
"""Blocks that only show something: output, mostly."""

DIRECTIVES = ("{toctree}", "{include} ../CHANGELOG.md")

# -- which blocks there are --------------------------------------------------------------------------------------------


def test_blocks_that_are_not_run_are_counted() -> None:
    counted: dict[str, int] = {}
    for block in BLOCKS:
        if block.marker.startswith("not run: "):
            counted[block.page] = counted.get(block.page, 0) + 1
    assert counted == NOT_RUN


def test_blocks_are_of_a_kind_that_is_tested() -> None:
    for block in BLOCKS:
        assert block.language in ("python", "sh", "sql", *SHOWN, *DIRECTIVES), block
        assert block.language != "sql" or block.page in TRIED_BY, block


@pytest.mark.parametrize(("page", "test"), TRIED_BY.items())
def test_pages_with_a_test_of_their_own_have_it(page: str, test: str) -> None:
    assert page.removesuffix(".md") in (ROOT / test).read_text(encoding="utf-8")


def test_a_block_that_shows_a_file_shows_what_is_in_it() -> None:
    shown = [block for block in BLOCKS if block.marker.startswith("file: ")]
    assert shown
    for block in shown:
        file = (ROOT / block.marker.removeprefix("file: ")).read_text(encoding="utf-8")
        assert block.code == file.replace("example.wsgi", "shop.wsgi"), block.marker  # the page's project is start.md's


def test_the_code_of_the_readme_is_that_of_the_ten_minute_start() -> None:
    (block,) = [block for block in BLOCKS if block.page == "README.md" and block.language == "python"]
    tried = "\n".join(block.code for block in BLOCKS if block.page == "start.md" and block.language == "python")
    files = re.split(r"^(?=# \S+\.py)", block.code, flags=re.M)[1:]
    assert len(files) == 3
    for file in files:
        assert file.strip() in tried, file


# -- Python ------------------------------------------------------------------------------------------------------------

SAID = {
    "mappings.md": ["connection 'one': state BROKEN: an unknown state"],
    "receivers.md": ["Account ()", "Acme was Energy", "task: UPDATE"],
    "reloads.md": ["Account was reloaded: {'cleared': 3, 'unchanged': 3"],
    "signals.md": [
        "Acme Ltd ('name',) {'name': 'Acme'}",
        "to index: ['001000000000001AAA'",
        "crm.Account may have changed since None because of capture_failed",
    ],
}
"""What the receivers of a page print while Salesforce's part is played."""

AFTER = {
    "receivers.md": "from django_tasks_db.models import DBTaskResult\n"
    "print('task:', DBTaskResult.objects.get().args_kwargs['kwargs']['change_type'])"
}
"""What else is looked at when a page has been played."""

RUN_HERE = sorted({block.page for block in BLOCKS if block.language == "python"} - set(TRIED_BY))


@pytest.fixture(scope="module")
def start_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project of docs/start.md, made once."""
    project = Project(tmp_path_factory.mktemp("start"), "hc_signals_start")
    project.start()
    yield project
    project.drop()


@pytest.mark.usefixtures("heroku_api")
@pytest.mark.parametrize("page", RUN_HERE)
def test_python_of_a_page_runs_in_the_start_project(page: str, start_project: Project, tmp_path: Path) -> None:
    """Its files are written in their order, and what names no file is run; then Salesforce's part is played."""
    project = start_project.copy(tmp_path, "hc_signals_page")
    try:
        blocks = [block for block in BLOCKS if block.page == page and block.language == "python"]
        printed = project.play(blocks, AFTER.get(page, ""))
    finally:
        project.drop()
    for line in SAID.get(page, []):
        assert line in printed, printed


@pytest.mark.parametrize("page", sorted(set(TEXT) - {"testing.md"}))
def test_no_page_imports_the_example(page: str) -> None:
    """A reader has the project of docs/start.md, not ours."""
    for block in BLOCKS:
        assert block.page != page or "example." not in block.code.replace("example.com", ""), block.code


@pytest.fixture
def heroku_api(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Heroku Connect's API, with a connection in a state that nobody has heard of."""
    import threading

    with FakeHeroku() as server:
        server.states = ["BROKEN"]
        monkeypatch.setenv("HEROKU_AUTH_TOKEN", "a-token")
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
    """Parse what comes after manage.py by the command's own parser."""
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
    """Only what the compose file has; there is no engine where the tests run."""
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
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    assert words[0] in PROGRAMS, command
    try:
        PROGRAMS[words[0]](words[1:])
    except (SystemExit, CommandError):
        pytest.fail(f"is not understood: {command}")


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "sh"], ids=lambda block: block.page)
def test_commands_are_understood(block: Block) -> None:
    if not block.marker.startswith("not run: "):
        for command in commands(block):
            is_known(command)


def test_heroku_runs_commands_that_are_understood() -> None:
    for block in BLOCKS:
        for command in re.findall(r"^heroku run (.*)$", block.code, re.M):
            is_known(command)
    for line in (ROOT / "example" / "Procfile").read_text(encoding="utf-8").splitlines():
        for command in line.partition(": ")[2].split(" && "):
            if not command.startswith("gunicorn"):
                is_known(command)


@pytest.mark.parametrize("page", TEXT)
def test_commands_in_a_sentence_are_understood(page: str) -> None:
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


def test_app_json_fits_the_procfile() -> None:
    app = json.loads((ROOT / "example" / "app.json").read_text(encoding="utf-8"))
    lines = (ROOT / "example" / "Procfile").read_text(encoding="utf-8").splitlines()
    processes = {line.partition(":")[0] for line in lines}
    assert set(app["formation"]) == processes - {"release"}
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "example" / "example").rglob("*.py"))
    for variable in set(app["env"]) - {"DISABLE_COLLECTSTATIC"}:
        assert f'"{variable}"' in source, variable
