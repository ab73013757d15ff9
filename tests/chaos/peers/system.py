"""A system that delivers changes of a table: how to install it, to run its worker, and what its docs promise.

A worker writes each change that it gets into ``chaos_ledger``, by the connection that its system recommends.
"""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent.parent
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
"""Interpreter of the peers' environment."""
KEEP = "INSERT INTO chaos_ledger (consumer, record, operation, version) VALUES ('it', %s, %s, %s)"
"""Adds a change to the ledger."""

# For systems that have no trigger of their own. A changed key is a deletion and a creation, as for hc_signals.
TRIGGER = """
CREATE FUNCTION chaos_capture() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.id <> NEW.id) THEN
        PERFORM chaos_enqueue(OLD.sfid::text, 'DELETE', OLD.numberofemployees::integer);
    END IF;
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND OLD.id <> NEW.id) THEN
        PERFORM chaos_enqueue(NEW.sfid::text, 'CREATE', NEW.numberofemployees::integer);
    ELSIF TG_OP = 'UPDATE' THEN
        PERFORM chaos_enqueue(NEW.sfid::text, 'UPDATE', NEW.numberofemployees::integer);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER chaos_capture AFTER INSERT OR UPDATE OR DELETE ON salesforce.account
FOR EACH ROW EXECUTE FUNCTION chaos_capture();
"""


@dataclass(frozen=True)
class System:
    """One system.

    Args:
        name: of its module and in options.
        label: in the table.
        install: commands that install it into a database, after python.
        work: command of its worker, after python; it gets DATABASE_URL.
        promises: ``once`` (effects in the same database exist once), ``order`` (of the changes of a record). All
            systems promise that nothing is lost.
        sql: creates ``chaos_enqueue(record, operation, version)`` and what else the trigger needs.
        captures: the triggers of hc_signals are installed.
        python: interpreter.
        environment: variables of its processes.
    """

    name: str
    label: str
    install: tuple[tuple[str, ...], ...]
    work: tuple[str, ...]
    promises: frozenset[str] = frozenset()
    sql: str = ""
    captures: bool = False
    python: Path = PYTHON
    environment: Mapping[str, str] = field(default_factory=dict)

    def variables(self, url: str) -> dict[str, str]:
        """Return the environment of a process."""
        own = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        path = f"{ROOT}:{ROOT / 'example'}"
        return {**own, "PYTHONPATH": path, "DATABASE_URL": url, "PYTHONUNBUFFERED": "1", **self.environment}

    def install_into(self, url: str) -> None:
        """Install it into a database."""
        for command in self.install:
            done = subprocess.run(
                [str(self.python), *command],
                env=self.variables(url),
                cwd=ROOT,
                text=True,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            if done.returncode:
                raise RuntimeError(f"{self.name}: {' '.join(command)} failed:\n{done.stdout}")
