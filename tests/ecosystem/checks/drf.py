"""Django REST framework: reads and writes a connected model."""

from typing import Any

from tests.ecosystem.records import lead, salesforces_changes
from tests.ecosystem.site import equal

PACKAGES = ("djangorestframework", "django-filter")
APPS = ["rest_framework", "django_filters"]


def models() -> None:
    lead()


def urls() -> list[Any]:
    from django.urls import include, path
    from django_filters.rest_framework import DjangoFilterBackend
    from rest_framework.routers import DefaultRouter
    from rest_framework.viewsets import ModelViewSet

    from hc_signals.contrib.rest_framework import HerokuConnectModelSerializer
    from tests.ecosystem.shop.models import Lead

    class LeadSerializer(HerokuConnectModelSerializer):
        class Meta:
            model = Lead
            fields = "__all__"

    class Leads(ModelViewSet):
        queryset = Lead.objects.order_by("id")
        serializer_class = LeadSerializer
        filter_backends = [DjangoFilterBackend]
        filterset_fields = ["status"]

    router = DefaultRouter()
    router.register("leads", Leads)
    return [path("api/", include(router.urls))]


def check(site: Any) -> None:
    sfid = salesforces_changes(site)
    client = site.client()
    (found,) = client.get("/api/leads/?status=Closed").json()
    equal((found["sf_id"], found["company"]), (sfid, "Acme Ltd"))
    equal(client.get("/api/leads/?status=Open").json(), [])
    answer = client.put(f"/api/leads/{found['id']}/", found | {"company": "by REST"}, content_type="application/json")
    equal((answer.status_code, answer.json()["company"]), (200, "by REST"))
    equal(client.get("/api/leads/", headers={"accept": "text/html"}).status_code, 200)
