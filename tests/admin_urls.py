"""URLs of an admin with every connected model."""

from django.contrib import admin
from django.urls import path

from hc_signals.tables import connected_models

for model in connected_models():
    if not admin.site.is_registered(model):
        admin.site.register(model)

urlpatterns = [path("admin/", admin.site.urls)]
