"""Errors of the connected models."""

from django.db import NotSupportedError


class WriteNotSupportedError(NotSupportedError):
    """A write to a read-only model."""


class MissingArgumentError(TypeError, KeyError):
    """A required keyword argument of a connected field is missing. It is a KeyError as in django-heroku-connect."""

    def __str__(self) -> str:
        """Return the message; KeyError would return its repr."""
        return str(self.args[0]) if self.args else ""
