"""A project that uses django-heroku-connect."""
