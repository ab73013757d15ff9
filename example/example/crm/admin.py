"""The example's records in the admin; records that Salesforce owns are shown read-only."""

from typing import Any

from django.contrib import admin

from example.crm.models import Account, CompoundModel, Contact, Project, Seen


class ReadOnlyAdmin(admin.ModelAdmin):
    """No editing: the router refuses writes to a read-only mapping."""

    def has_add_permission(self, *args: Any, **kwargs: Any) -> bool:
        """No adding."""
        return False

    has_change_permission = has_add_permission
    has_delete_permission = has_add_permission


@admin.register(Account)
class AccountAdmin(ReadOnlyAdmin):
    list_display = ("sf_id", "name", "industry", "annual_revenue")
    search_fields = ("name",)


@admin.register(Project)
class ProjectAdmin(ReadOnlyAdmin):
    list_display = ("sf_id", "name", "active", "progress")


@admin.register(Contact)
class ContactAdmin(admin.ModelAdmin):
    list_display = ("sf_id", "last_name", "email")


@admin.register(CompoundModel)
class CompoundModelAdmin(admin.ModelAdmin):
    list_display = ("data", "more_data")


@admin.register(Seen)
class SeenAdmin(ReadOnlyAdmin):
    list_display = ("event_id", "entity_name", "change_type", "record_key")
    list_filter = ("entity_name", "change_type")
