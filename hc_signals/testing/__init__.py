"""Tools for tests and development: a Heroku Connect that plays Salesforce, and an embedded PostgreSQL."""

from hc_signals.testing.heroku_connect import HerokuConnect

__all__ = ["HerokuConnect"]
