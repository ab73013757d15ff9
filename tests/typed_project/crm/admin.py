"""Admin classes of connected models."""

from django.contrib import admin

from crm.models import Account, Contact
from hc_signals.admin import MultiPicklistListFilter, ReadOnlyModelAdmin, TimelineMixin


@admin.register(Account)
class AccountAdmin(TimelineMixin, ReadOnlyModelAdmin):
    list_display = ("name", "revenue_in_thousands")
    list_filter = (("services", MultiPicklistListFilter),)

    @admin.display(description="k€")
    def revenue_in_thousands(self, account: Account) -> int:
        return int((account.revenue or 0) / 1000)


@admin.register(Contact)
class ContactAdmin(ReadOnlyModelAdmin):
    list_display = ("last_name",)
