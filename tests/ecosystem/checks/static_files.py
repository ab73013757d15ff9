"""WhiteNoise with hashed names: collectstatic finds every file that ours refer to."""

import os
import tempfile
from typing import Any

PACKAGES = ("whitenoise",)
SETTINGS: dict[str, Any] = {
    "STATIC_ROOT": os.environ.setdefault("ECOSYSTEM_STATIC", tempfile.mkdtemp()),
    "STORAGES": {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    },
    "WHITENOISE_USE_FINDERS": False,
}


def make_site() -> Any:
    """Collect the files before the first page is shown."""
    from django.core.management import call_command

    from tests.ecosystem.site import Site

    call_command("collectstatic", interactive=False, verbosity=0)
    return Site()
