"""`python -m tests.generated_history CHANGES DIRECTORY`: a right history of this size, for specs/history.py.

Two consumers observe what was committed, each in an order of its own: the order is kept per record only.
"""

import gzip
import random
import sys
from collections import deque
from pathlib import Path
from typing import Any

CONSUMERS = ("mail", "search")
DISTANCE = 1000
"""A consumer is at most about so many changes behind."""


def write(changes: int, directory: Path, seed: int = 1) -> tuple[str, str]:
    """Write both files.

    Args:
        changes: number of committed changes.
        directory: of the files.
        seed: of the choices.

    Returns:
        The paths of the committed and of the observed changes.
    """
    chance = random.Random(seed)
    paths = (str(directory / "committed.jsonl.gz"), str(directory / "observed.jsonl.gz"))
    with gzip.open(paths[0], "wt", 1) as committed, gzip.open(paths[1], "wt", 1) as observed:
        waiting: dict[str, list[deque[str]]] = {name: [deque() for _ in range(8)] for name in CONSUMERS}
        versions: dict[int, int] = {}
        for number in range(changes):
            record = int(chance.random() * max(1, changes // 20))
            versions[record] = version = versions.get(record, 0) + 1
            line = f'"record": "{record:018d}", "version": {version}, "transaction": "{1000 + number // 5}"}}\n'
            committed.write("{" + line)
            for name, shards in waiting.items():
                shards[record % 8].append(f'{{"consumer": "{name}", {line}')
                if number > DISTANCE:
                    _deliver(shards, chance, observed)
        for shards in waiting.values():
            while any(shards):
                _deliver(shards, chance, observed)
    return paths


def _deliver(shards: list[deque[str]], chance: random.Random, observed: Any) -> None:
    shard = shards[int(chance.random() * len(shards))] or max(shards, key=len)
    observed.write(shard.popleft())


if __name__ == "__main__":
    print(*write(int(sys.argv[1]), Path(sys.argv[2])), sep="\n")
