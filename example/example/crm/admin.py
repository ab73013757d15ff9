"""The example's records in the admin; records that Salesforce owns are shown read-only."""

from django.contrib import admin

from example.crm.models import Account, CompoundModel, Contact, Project, Seen
from hc_signals.admin import ReadOnlyModelAdmin


@admin.register(Account)
class AccountAdmin(ReadOnlyModelAdmin):
    list_display = ("sf_id", "name", "industry", "annual_revenue")
    search_fields = ("name",)


@admin.register(Project)
class ProjectAdmin(ReadOnlyModelAdmin):
    list_display = ("sf_id", "name", "active", "progress")


@admin.register(Contact)
class ContactAdmin(admin.ModelAdmin):
    list_display = ("sf_id", "last_name", "email")


@admin.register(CompoundModel)
class CompoundModelAdmin(admin.ModelAdmin):
    list_display = ("data", "more_data")


@admin.register(Seen)
class SeenAdmin(ReadOnlyModelAdmin):
    list_display = ("event_id", "entity_name", "change_type", "record_key")
    list_filter = ("entity_name", "change_type")
