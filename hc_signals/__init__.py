"""Django signals for the changes that Heroku Connect makes below Django."""

__version__ = "0.1.0"
