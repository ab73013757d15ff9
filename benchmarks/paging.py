"""Delivers some pages to a receiver that does nothing; prints the seconds of each, and the process's largest memory."""

import json
import resource
import sys
import time

import django


def main(consumer: str, pages: int) -> None:
    """Deliver ``pages`` pages of the only shard."""
    django.setup()
    from benchmarks import workload
    from benchmarks.records import receivers

    receivers.connect("nothing")
    worker = workload.worker(CONSUMER=consumer)
    worker.prepare()
    seconds = []
    for _ in range(pages):
        began = time.perf_counter()
        worker.shards[0].deliver_page()
        seconds.append(time.perf_counter() - began)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "megabytes": memory}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
