"""Receivers of every kind."""

from functools import partial
from typing import Any, assert_type

from django.dispatch import receiver

from crm.models import Account, AccountProxy, Contact, Customer
from hc_signals.events import ChangeEvent
from hc_signals.receivers import on_change
from hc_signals.signals import gap_detected, record_updated, records_changed

AnyRecord = Account | Contact


@on_change(Account, fields=["name"], types=["UPDATE"], settled=True)
def on_account(instance: Account, event: ChangeEvent[Account], using: str, **kwargs: Any) -> int:
    assert_type(event.instance, Account)
    assert_type(event.changed_fields, tuple[str, ...])
    return len(instance.name)


@on_change(Account)
@on_change(Contact, fields=["account"], types=["UPDATE", "DELETE"])
def on_either(instance: AnyRecord, event: ChangeEvent[AnyRecord], **kwargs: object) -> None:
    assert_type(event.instance, AnyRecord)


@on_change(Account)
@on_change(Contact)
async def on_either_later(event: ChangeEvent[Any], **kwargs: Any) -> str:
    return event.event_id


@on_change(AccountProxy)
def on_proxy(sender: type[AccountProxy], instance: AccountProxy, **kwargs: Any) -> None: ...


@on_change(Customer)
def on_child(instance: Account, **kwargs: Any) -> None: ...


def _forward(topic: str, instance: Account, **kwargs: Any) -> None: ...


class Sales:
    def on_account(self, instance: Account, **kwargs: Any) -> bool:
        return instance.active is True

    def __call__(self, event: ChangeEvent[Account], **kwargs: Any) -> None: ...


sales = Sales()
on_change(Account, dispatch_uid="forward")(partial(_forward, "billing"))
assert_type(on_change(Account)(sales.on_account)(Account()), bool)
on_change(Account)(sales)


@receiver(record_updated, sender=Account)
def on_update(sender: type[Account], instance: Account, event: ChangeEvent[Account], **kwargs: Any) -> int:
    return 1


@receiver(records_changed, sender=Account)
def on_page(events: list[ChangeEvent[Account]], **kwargs: Any) -> None:
    assert_type([event.instance for event in events], list[Account])


@receiver(gap_detected)
def on_gap(event: ChangeEvent, **kwargs: Any) -> None:
    print(event.cause, event.since)


record_updated.connect(on_update, sender=Account)
record_updated.connect(on_update, sender="crm.Account")


async def call_directly(account: Account, event: ChangeEvent[Account]) -> None:
    """A decorated function keeps its signature."""
    assert_type(on_account(account, event, using="default"), int)
    assert_type(on_account(instance=account, event=event, using="default"), int)
    assert_type(await on_either_later(event), str)
    assert_type(on_update(Account, account, event), int)
    on_account(account, event, 3)  # type: ignore[arg-type]
    on_account(account, event)  # type: ignore[call-arg]


def mistakes() -> None:
    @on_change(Account)  # type: ignore[arg-type]
    def without_kwargs(instance: Account) -> None: ...

    @on_change(Account)  # type: ignore[arg-type]
    def of_another_model(instance: Contact, **kwargs: Any) -> None: ...

    @on_change(Account)  # type: ignore[arg-type]
    def of_another_event(event: ChangeEvent[Contact], **kwargs: Any) -> None: ...

    @on_change(Contact)  # type: ignore[arg-type]
    @on_change(Account)
    def of_one_model(instance: Account, **kwargs: Any) -> None: ...

    @on_change(Account)  # type: ignore[arg-type]
    def with_wrong_using(using: int, **kwargs: Any) -> None: ...

    on_change("crm.Account")  # type: ignore[arg-type]
    on_change(Account, fields=3)  # type: ignore[arg-type]
