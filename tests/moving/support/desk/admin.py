"""An admin for tickets; the package's own admin shows the writes that Salesforce refused."""

from django.contrib import admin
from heroku_connect.admin import TriggerLogAdmin
from heroku_connect.models import TriggerLog

from desk.models import Contact, Ticket

admin.site.register(Contact)


@admin.register(Ticket)
class TicketAdmin(admin.ModelAdmin):
    fields = ["title", "stage", "contact"]
    list_display = ["title", "stage", "contact", "_hc_lastop"]
    list_filter = ["stage"]


class FailuresAdmin(TriggerLogAdmin):
    def get_queryset(self, request):
        return super().get_queryset(request).failed()


admin.site.unregister(TriggerLog)
admin.site.register(TriggerLog, FailuresAdmin)
