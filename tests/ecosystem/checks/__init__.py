"""One module per package: what to set for it, and what must work with it.

A module may have:

- ``PACKAGES``: names on PyPI, which are printed with their versions.
- ``NEEDS``: a function of ``tests.ecosystem.needs`` that returns what the machine lacks.
- ``FIRST``, ``APPS``: apps before and behind the example's ``INSTALLED_APPS``.
- ``DATABASE``: keys of the example's ``DATABASES["default"]``.
- ``SETTINGS``, or a function ``settings()``: settings. A list goes behind the example's, a dict into it.
- ``SETTINGS_MODULE``: another module of settings.
- ``prepare()``: what manage.py does before Django is set up.
- ``models()``: declares models in the app ``shop``, and connects receivers.
- ``urls()``: returns URL patterns.
- ``make_site()``: makes the site, if there is something to do before.
- ``check(site)``: raises if something does not work. ``Site.common`` has run before.
"""
