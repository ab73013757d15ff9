"""The example's pages, and those of the check."""

from example.urls import urlpatterns as example

from tests.ecosystem.chosen import CHECK

urlpatterns = [*example, *(CHECK.urls() if hasattr(CHECK, "urls") else [])]
