"""The public signals. Each is sent with ``sender`` (the model), ``instance``, ``event`` and ``using``."""

from django.dispatch import Signal

record_created = Signal()
"""A record was created in Salesforce, or came back from its recycle bin."""
record_updated = Signal()
"""A mapped field of a record changed in Salesforce."""
record_deleted = Signal()
"""A record was deleted in Salesforce; ``instance`` is its last state."""
record_changed = Signal()
"""Sent for each of the three changes above, and for a SNAPSHOT by hc_backfill."""
records_changed = Signal()
"""Sent once per model and page, with ``events=[...]`` instead of ``instance`` and ``event``: for bulk work."""
record_linked = Signal()
"""Salesforce has given its sfid to a row that the app created, in a read-write mapping."""
sync_failed = Signal()
"""Salesforce has refused a write of the app, in a read-write mapping. ``message`` is the answer (``_hc_err``)."""
gap_detected = Signal()
"""Changes may have been missed: read the table again. ``event.cause`` says why."""
table_reloaded = Signal()
"""Heroku Connect has cleared a table and filled it again. ``event.counts`` has the result; there is no ``instance``."""
table_resynced = Signal()
"""A newly mapped field was filled in all records. ``event.counts`` has their number; there is no ``instance``."""
