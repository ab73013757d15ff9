"""URLs of the project."""

from django.contrib import admin
from django.urls import path
from status.views import status

urlpatterns = [path("admin/", admin.site.urls), path("status/", status)]
