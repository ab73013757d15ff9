"""Heroku Connect's trigger log: its states and actions, its models, and a parser of its records."""
