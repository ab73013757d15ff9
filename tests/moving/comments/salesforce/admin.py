"""A read-only admin for users."""

from django.contrib import admin

from salesforce.models import User


class ReadOnlyAdmin(admin.ModelAdmin):
    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_delete_permission(self, request, obj=None):
        return False


@admin.register(User)
class UserAdmin(ReadOnlyAdmin):
    list_display = ["username", "email", "department", "system_mod_stamp"]
    search_fields = ["username"]
