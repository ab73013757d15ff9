"""The app; its listeners are imported as the page on listeners says."""

from django.apps import AppConfig


class PubsubConfig(AppConfig):
    name = "tests.chaos.peers.pubsub"
    label = "pubsub"

    def ready(self) -> None:
        import tests.chaos.peers.pubsub.listeners  # noqa: F401
