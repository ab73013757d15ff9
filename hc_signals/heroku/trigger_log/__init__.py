"""Heroku Connect's trigger log: its words, its models, and the parser of the records in it."""
