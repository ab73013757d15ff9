"""Finds the browser: ``python -m tests.browser.chromium`` prints its path, or nothing."""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """Return the program that CHROMIUM names, else the first of NAMES on the PATH; None if there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


if __name__ == "__main__":
    print(find() or "")
