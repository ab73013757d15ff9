"""Errors of the connected models."""

from django.db import NotSupportedError


class WriteNotSupportedError(NotSupportedError):
    """A write to a model that Heroku Connect only reads from Salesforce."""


class MissingArgumentError(TypeError, KeyError):
    """A required keyword argument of a connected field is missing; a KeyError too, for code written for DHC."""

    def __str__(self) -> str:
        """Return the plain message; KeyError would show its repr."""
        return str(self.args[0]) if self.args else ""
