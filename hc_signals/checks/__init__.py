"""System checks: what ``manage.py check`` says about a project before ``hc_listen`` runs.

- ``relations``: relations between models and Salesforce objects, by the ids of django-heroku-connect.
- ``own_origin``: rules of ORIGINS that fit the project itself.
- ``project``: the setting, receivers, models, the router, the admin and database URLs.
- ``database``: tables, columns, change log and capture, by one query per database: for ``check --database`` and
  ``migrate``. ``check --tag hc_signals`` leaves it out.

``ALL`` lists every check with its tags, and ``hc_signals.apps`` registers them. Django's own hook for a single model,
``HerokuConnectModel.check()``, is in ``hc_signals.db.models``.

To add a check, write one function per id, add it to ``ALL``, and add its id to docs/checks.md. The message says what
was found and why that matters, the hint what to do. Ids are public, because projects silence them: an id is not used
again for another problem.

A check changes nothing, and an error in it is a bug. It must not query the database except in ``database``, must not
call Heroku Connect's API, and must not import ``hc_signals.heroku``. Checks of a wrong ``HC_SIGNALS`` leave the message
to E001.
"""

from collections.abc import Callable, Sequence

from django.core.checks import CheckMessage, Tags

from hc_signals.checks import database, own_origin, project, relations

Check = Callable[..., Sequence[CheckMessage]]

OF_DJANGO_HEROKU_CONNECT: tuple[Check, ...] = (
    relations.check_targets,
    relations.check_constraints,
    relations.check_object_names,
)
"""Checks that django-heroku-connect registers itself if it is installed."""

ALL: tuple[tuple[Check, tuple[str, ...]], ...] = (
    *((check, (Tags.models,)) for check in OF_DJANGO_HEROKU_CONNECT),
    (project.check_setting, ("hc_signals",)),
    (project.check_retention, ("hc_signals",)),
    (project.check_uncalled_receivers, ("hc_signals",)),
    (project.check_django_receivers, ("hc_signals",)),
    (project.check_unheard, ("hc_signals",)),
    (project.check_names, ("hc_signals",)),
    (project.check_managed, ("hc_signals",)),
    (project.check_cached_log, ("hc_signals",)),
    (project.check_triggers, ("hc_signals",)),
    (project.check_router, ("hc_signals",)),
    (project.check_admin, ("hc_signals",)),
    (project.check_database_urls, ("hc_signals",)),
    (own_origin.check_own_origin, ("hc_signals",)),
    # No tag of ours: Django 6.1 runs the checks of a `--tag` on every alias, and this one would query each database.
    (database.check_capture, (Tags.database,)),
)
"""Every check with its tags."""
