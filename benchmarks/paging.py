"""Delivers pages to a no-op receiver, in turns with the bare loop; prints the seconds and the peak memory."""

import json
import resource
import sys
import time

import django


def main(consumer: str, pages: int) -> None:
    """Deliver ``pages`` pages of the only shard."""
    django.setup()
    from benchmarks import workload
    from benchmarks.figures.drain import PAGE, bare_loop
    from benchmarks.records import receivers

    receivers.connect("nothing")
    worker = workload.worker(CONSUMER=consumer)
    worker.prepare()
    seconds, bare = [], []
    for _ in range(pages):
        began = time.perf_counter()
        worker.shards[0].deliver_page()
        seconds.append(time.perf_counter() - began)
        bare.append(bare_loop(PAGE))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "bare": bare, "megabytes": memory}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
