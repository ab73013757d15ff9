"""Heroku Connect itself: its API, its mapping configuration, its trigger log, its tables as models."""
