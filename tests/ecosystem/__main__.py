"""Runs each check in a process of its own, with its own database, and prints one line for each.

The exit code is 1 if a check failed. Checks whose programs are missing on this machine are named, and are no failures.
"""

import argparse
import importlib
import os
import pkgutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

from tests.ecosystem import checks
from tests.ecosystem.site import free_port
from tests.server import Server, installation, stock

ROOT = Path(__file__).parent.parent.parent
LOGS = ROOT / "build" / "ecosystem"
NAMES = sorted(module.name for module in pkgutil.iter_modules(checks.__path__))
SECONDS = 180
"""Longest time of one check."""


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="make ecosystem ECOSYSTEM=", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CHECK", help=f"default: all of {', '.join(NAMES)}")
    names = parser.parse_args().names or NAMES
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"There is no check {unknown[0]!r}; there are {', '.join(NAMES)}.")
    if "PG_BIN" not in os.environ and (distribution := stock()):
        os.environ["PG_BIN"] = str(distribution)  # which may have PostGIS
    LOGS.mkdir(parents=True, exist_ok=True)
    server = Server(installation(), "max_connections=100")
    try:
        ((postgresql,),) = server.execute("SHOW server_version")
        print(f"Python {sys.version.split()[0]}, Django {version('Django')}, PostgreSQL {postgresql}")
        failed = [name for name in names if not run(server, name)]
    finally:
        server.stop()
    print(f"{len(names) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def run(server: Server, name: str) -> bool:
    """Run one check and print its line; return False if it failed."""
    check = importlib.import_module(f"tests.ecosystem.checks.{name}")
    title = titled(check)
    if missing := check.NEEDS() if hasattr(check, "NEEDS") else "":
        print(f"not run  {title}: {missing}", flush=True)
        return True
    server.execute(f'CREATE DATABASE "{name}"')
    environment = {
        **os.environ,
        "DATABASE_URL": f"postgresql://postgres@/{name}?host={server.directory}",
        "DJANGO_SETTINGS_MODULE": getattr(check, "SETTINGS_MODULE", "tests.ecosystem.settings"),
        "ECOSYSTEM_CHECK": name,
        "ECOSYSTEM_PORT": str(free_port()),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "example")]),
    }
    log = LOGS / f"{name}.log"
    with log.open("w", encoding="utf-8") as file:
        try:
            command = [sys.executable, "-u", "-m", "tests.ecosystem.one"]
            code = subprocess.run(
                command, env=environment, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False, timeout=SECONDS
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
            file.write(f"\nnot done within {SECONDS} s\n")
    server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    if code:
        reason = log.read_text(encoding="utf-8").strip().splitlines()[-1][:300]
        print(f"FAILED   {title}: {reason} ({log.relative_to(ROOT)})", flush=True)
    else:
        print(f"ok       {title}", flush=True)
    return not code


def titled(check: ModuleType) -> str:
    """Return the packages with their versions."""
    found = []
    for package in check.PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} (not installed)")
    return ", ".join(found)


if __name__ == "__main__":
    sys.exit(main())
