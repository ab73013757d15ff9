"""Tests in a real browser: Playwright drives Chromium over the admin's pages, which run in this process.

::

    test ----- browse(path, user, dark, width) -----> Chromium
     |                                                   |  HTTP, under a strict Content-Security-Policy
     |  changes of records, workers                      v
     +-----------------> test database <------- pytest-django's live server (a thread)

``check_page(page)`` holds every page to the same rules: see :mod:`tests.browser.rules`. `make test-browser` runs these
tests, `make test` does not.

chromium  Finds the browser.
policy    The middleware that sends the policy.
rules     What every page must meet.
conftest  The fixtures.
"""
