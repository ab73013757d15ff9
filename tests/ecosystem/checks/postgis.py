"""GeoDjango: PostGIS's engine of Django, and a receiver that writes a point."""

from typing import Any

from tests.ecosystem import needs
from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import Site, equal

PACKAGES = ("Django",)
NEEDS = needs.postgis
APPS = ["django.contrib.gis"]
DATABASE = {"ENGINE": "django.contrib.gis.db.backends.postgis"}


def models() -> None:
    from django.contrib.gis.db import models
    from django.contrib.gis.geos import Point
    from django.dispatch import receiver

    from hc_signals.signals import record_changed

    class Place(models.Model):
        record_id = models.TextField()
        point = models.PointField()

        class Meta:
            app_label = "shop"

    @receiver(record_changed, sender=lead(), weak=False)
    def place(event: Any, using: str, **kwargs: Any) -> None:
        Place.objects.using(using).create(record_id=event.record_id, point=Point(13.4, 52.5))


def make_site() -> Site:
    """Return the site; its schema is Heroku Connect's, in the backend of ours too."""
    return Site()


def check(site: Any) -> None:
    from django.contrib.gis.geos import Point

    from tests.ecosystem.shop.models import Place

    salesforces_changes(site)
    equal(Place.objects.filter(point__distance_lte=(Point(13.4, 52.5, srid=4326), 1)).count(), 2)
