"""The pages of hc_signals in Django's admin.

This package owns no table. Users read the log and its consumers here; they act on failed deliveries, on capture and
on writes that Salesforce refused::

    page                     shows                            acts through
    Overview                 observability.judge, log.minutes -
    Changes                  the change log                   -
    Timeline of a record     log.record, log.heard            delivery.again: deliver again
    Deliveries, by error     stored deliveries                delivery.interventions: retry, discard
    Consumers and shards     observability.survey             -
    Capture triggers         observability.survey             capture.outages: install
    Trigger log, archive     Heroku Connect's _trigger_log    heroku.trigger_log: ignore, retry

The log may have millions of rows and no index but the ones that delivery needs. So no page counts it::

    all ids of the log   |...................|=======================|.........|
                          older pages         window: 200 000 at most  newer pages

overview     The health, the charts and the live tail.
changes      The list of changes, and each change field by field.
timeline     The page of one record, its search, and "Deliver again to ..."; history: what that page shows.
links        Addresses of a record: its timeline, and its page in Salesforce.
log_window   The window of ids that one page of the list searches.
difference   The old and the new value of each field, with the difference marked.
records      The records behind the rows: their names, their own pages, and who may see their values.
text         Texts as HTML: shortened, and with a sign for each invisible character.
deliveries   The failed deliveries, with the actions that retry or discard them.
delivery_errors  The same by receiver and error, with the actions on all that match.
positions    The consumers with their backlog and positions.
capture      The state of capture on each table, with the button that installs it.
trigger_log  The trigger log of Heroku Connect and its archive.
filters      Filters for our lists, and for multi-select picklists in the project's own lists.
base         The bases of our pages and of the project's read-only ones; the limit up to which lists are counted.

Rules that hold for every page:

- A page without its table says so in one sentence.
- The cost of a page does not grow with the table.
- Users add, edit or remove no row of our own tables. What they do instead goes through the package that owns the table.
- Values of records are escaped, and shown to users who may view the model.
- A request to write by a user who may not is refused, whatever its method.
- All times of a page are in one time zone, and the page names it.
"""

from hc_signals.admin.base import ReadOnlyModelAdmin
from hc_signals.admin.capture import ConnectedTableAdmin
from hc_signals.admin.changes import ChangeAdmin
from hc_signals.admin.deliveries import DeliveryAdmin
from hc_signals.admin.filters import MultiPicklistListFilter
from hc_signals.admin.links import TimelineMixin
from hc_signals.admin.overview import MinuteAdmin
from hc_signals.admin.positions import PositionAdmin
from hc_signals.admin.trigger_log import TriggerLogAdmin, TriggerLogArchiveAdmin

__all__ = (
    "ChangeAdmin",
    "ConnectedTableAdmin",
    "DeliveryAdmin",
    "MinuteAdmin",
    "MultiPicklistListFilter",
    "PositionAdmin",
    "ReadOnlyModelAdmin",
    "TimelineMixin",
    "TriggerLogAdmin",
    "TriggerLogArchiveAdmin",
)
