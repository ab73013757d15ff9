"""The blocks of code of docs/ecosystem.md, which the checks run."""

from pathlib import Path
from typing import Any

PAGE = "ecosystem.md"
_KEPT: list[Any] = []
"""Namespaces of blocks: Django refers to receivers weakly."""


def run_block(line: str, **names: Any) -> dict[str, Any]:
    """Run the block that contains a line, with ``names``, and ``shop.Lead`` as Account; return its names."""
    text = (Path(__file__).parent.parent.parent / "docs" / PAGE).read_text(encoding="utf-8")
    (code,) = [block.split("```")[0] for block in text.split("```python\n")[1:] if f"\n{line}" in block.split("```")[0]]
    code = code.replace("from crm.models import Account\n", "").replace("crm.Account", "shop.Lead")
    code = code.replace("crm.tasks.send_mail", "tests.ecosystem.queues.ran")
    namespace = {"__name__": "tests.ecosystem.page", **names}
    exec(compile(code, PAGE, "exec"), namespace)
    _KEPT.append(namespace)
    return namespace
