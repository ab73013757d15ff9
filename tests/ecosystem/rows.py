"""Rows for the pages of the admin, and the addresses of these pages."""

from typing import Any


def write_rows(site: Any) -> dict[str, str]:
    """Write changes, failed deliveries, minutes and a refused write; return the addresses of our pages by name."""
    from django.urls import reverse
    from example.crm.models import Account, Contact

    from hc_signals import signals
    from hc_signals.models import Change, Delivery, TriggerLog

    def mail_the_owner(instance: Any, **kwargs: Any) -> None:
        raise ConnectionError(f"mail.example.com answered 503 for {instance.pk}")

    signals.record_changed.connect(mail_the_owner, sender=Contact)
    first, *_ = site.heroku.insert(Contact, {"last_name": "Ada"}, {"last_name": "Grace"}, {"last_name": "Edsger"})
    site.heroku.update(Contact, first, last_name="Lovelace")
    (account,) = site.heroku.insert(Account, name="Acme", industry="Energy")
    site.heroku.update(Account, account, industry="Retail", name="Acme Ltd " + "of a long name " * 8)
    site.deliver_all()
    signals.record_changed.disconnect(mail_the_owner, sender=Contact)
    refused = TriggerLog.objects.create(
        id=1_000_000,  # the sequence of the simulated Heroku Connect begins at 1
        action="UPDATE",
        state="FAILED",
        table_name="contact",
        record_id=1,
        sf_id="003000000000001AAA",
        sf_message="FIELD_CUSTOM_VALIDATION_EXCEPTION: " + "the e-mail must not be empty " * 10,
        values='"email"=>"new@example.com"',
        old='"id"=>"1", "email"=>"old@example.com"',
    )
    delivery = Delivery.objects.earliest("id")
    change = Change.objects.filter(operation="UPDATE").latest("id")

    def page(name: str, *arguments: Any) -> str:
        return reverse(f"admin:{name}", args=arguments)

    return {
        "index": page("index"),
        "overview": page("hc_signals_minute_changelist"),
        "changes": page("hc_signals_change_changelist"),
        "change": page("hc_signals_change_change", change.pk),
        "timelines": page("hc_signals_change_timelines"),
        "timeline": page("hc_signals_change_timeline", "crm.Contact", first),
        "deliveries": page("hc_signals_delivery_changelist"),
        "delivery": page("hc_signals_delivery_change", delivery.pk),
        "errors": page("hc_signals_delivery_errors"),
        "consumers": page("hc_signals_position_changelist"),
        "triggers": page("hc_signals_connectedtable_changelist"),
        "trigger_log": page("hc_signals_triggerlog_changelist"),
        "refused_write": page("hc_signals_triggerlog_change", refused.pk),
        "account": page("crm_account_change", Account.objects.latest("id").pk),
        "contact": page("crm_contact_change", Contact.objects.earliest("id").pk),
    }
