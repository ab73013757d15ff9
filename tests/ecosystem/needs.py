"""What a check needs besides Python packages. Each function returns what is missing; empty: nothing."""

import os
import shutil
from pathlib import Path


def redis() -> str:
    """Return what to install for a Redis server."""
    return "" if shutil.which("redis-server") else "no redis-server (Debian: apt-get install redis-server)"


def postgis() -> str:
    """Return what to install for PostGIS; its server is the distribution's, named by PG_BIN."""
    programs = Path(os.environ.get("PG_BIN", ""))
    found = any(Path("/usr/share/postgresql").glob(f"{programs.parent.name}/extension/postgis.control"))
    if not found or not os.environ.get("PG_BIN"):
        return "no PostGIS (Debian: apt-get install postgresql-15-postgis-3 gdal-bin)"
    return "" if shutil.which("gdalinfo") else "no GDAL (Debian: apt-get install gdal-bin)"
