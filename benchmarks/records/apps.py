"""Connects the receiver that the environment names."""

import os

from django.apps import AppConfig


class RecordsConfig(AppConfig):
    name = "benchmarks.records"
    label = "records"

    def ready(self) -> None:
        if "BENCH_RECEIVER" in os.environ:
            from benchmarks.records import receivers

            receivers.connect(os.environ["BENCH_RECEIVER"])
