"""The app's own writes to connected tables: what becomes of them in Salesforce.

::

    the app writes a row --> trigger log --> Salesforce
             |                                  |
             |             sfid, or a refusal   |
             +------- the row <-----------------+
                         |
                      linking: waits for it

Modules:

    linking    waits until Salesforce has given a new row its sfid, or has refused it
    children   sends rows again that Salesforce refused because their parent was not there yet

Nothing on a change's way from the trigger to a receiver imports this package.
"""

from hc_signals.writes.children import redo_given_up
from hc_signals.writes.linking import Link, LinkState, NotLinkedError, await_linked, wait_linked

__all__ = ("Link", "LinkState", "NotLinkedError", "await_linked", "redo_given_up", "wait_linked")
