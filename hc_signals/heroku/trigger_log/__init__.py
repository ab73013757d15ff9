"""Heroku Connect's trigger log: its states and actions, and its models."""
