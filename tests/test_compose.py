"""docker-compose.yml matches the code: its commands, settings and order; it has no secret."""

import re
from pathlib import Path
from typing import Any

import dj_database_url
import pytest
import yaml
from django.core.management import get_commands, load_command_class

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def test_stack_has_all_services() -> None:
    run = [" ".join(service["command"]) for service in OURS.values()]
    for needed in ("migrate", "hc_simulate --create-only", "hc_triggers install", "hc_listen", "gunicorn"):
        assert any(needed in command for command in run), needed


@pytest.mark.parametrize("name", OURS)
def test_commands_are_known_to_manage_py(name: str) -> None:
    if OURS[name]["command"][0] == "gunicorn":  # test_stack.py runs it
        return
    python, script, command, *arguments = OURS[name]["command"]
    assert (python, script) == ("python", "manage.py")
    workdir = [line.split()[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("WORKDIR")]
    assert (ROOT / workdir[-1].removeprefix("/app/") / script).is_file()
    parser = load_command_class(get_commands()[command], command).create_parser("manage.py", command)
    parser.parse_args(arguments)  # a wrong flag exits


@pytest.mark.parametrize("name", OURS)
def test_example_reads_every_environment_variable(name: str) -> None:
    source = "".join(path.read_text() for path in (ROOT / "example" / "example").rglob("*.py"))
    for variable in set(OURS[name]["environment"]) - {"DATABASE_URL"}:  # dj_database_url reads it
        assert f'"{variable}"' in source, variable


def test_database_url_names_the_service() -> None:
    for service in OURS.values():
        settings = dj_database_url.parse(service["environment"]["DATABASE_URL"])
        assert settings["HOST"] in SERVICES
        assert not settings["PASSWORD"]


def test_stack_has_no_secrets_and_no_public_ports() -> None:
    for name, service in SERVICES.items():
        for key in service["environment"]:
            assert not any(word in key for word in ("PASSWORD", "SECRET", "TOKEN", "KEY")), (name, key)
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), (name, port)


def test_services_start_in_their_order() -> None:
    """Each service waits for a healthy server, for tables or for triggers, and for the end of commands that end."""
    assert SERVICES["postgres"]["healthcheck"]["test"][1] == "pg_isready"

    def before(name: str) -> set[str]:
        direct = SERVICES[name].get("depends_on", {})
        return set(direct).union(*(before(other) for other in direct))

    assert before("listener") == before("simulator") == {"postgres", "migrate", "tables", "triggers"}
    for service in SERVICES.values():
        for other, condition in service.get("depends_on", {}).items():
            expected = "service_healthy" if "healthcheck" in SERVICES[other] else "service_completed_successfully"
            assert condition["condition"] == expected
            if expected == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "on-failure", "restarted for ever, it would never be completed"


def test_lasting_services_are_restarted() -> None:
    for name in ("postgres", "simulator", "listener", "web"):
        assert SERVICES[name]["restart"] == "unless-stopped"


DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()


def test_dockerfile_copies_existing_files() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in DOCKERFILE:
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                assert source in sent, source


def test_image_is_pinned_and_runs_without_root() -> None:
    bases = {line.split()[1] for line in DOCKERFILE if line.startswith("FROM")}
    images = bases | {service["image"] for service in SERVICES.values() if "image" in service}
    for image in images:
        assert re.search(r":\d+\.\d+(\.\d+)?-", image), f"{image}: which one is that next year?"
    last_stage = DOCKERFILE[max(n for n, line in enumerate(DOCKERFILE) if line.startswith("FROM")) :]
    assert [line for line in last_stage if line.startswith("USER")] == ["USER app"]
    assert not any(line.startswith("RUN") and "pip" in line for line in last_stage)


@pytest.mark.django_db
def test_site_shows_the_admin(admin_client: Any, heroku: Any) -> None:
    from example.crm.models import Account

    heroku.create(Account, 3)
    page = admin_client.get("/admin/crm/account/")
    assert page.status_code == 200
    assert heroku.sfids(Account)[0] in page.content.decode()
