"""The public signals. Each is sent with ``sender`` (the model), ``instance``, ``event`` and ``using``."""

from django.dispatch import Signal

record_created = Signal()
"""A record was created in Salesforce, or came back from its recycle bin."""
record_updated = Signal()
"""A mapped field of a record changed in Salesforce."""
record_deleted = Signal()
"""A record was deleted in Salesforce; ``instance`` is its last state."""
record_changed = Signal()
"""Any of the three above, and a SNAPSHOT by hc_backfill."""
records_changed = Signal()
"""Once per model and page, with ``events=[...]`` instead of ``instance`` and ``event``: for bulk work."""
gap_detected = Signal()
"""Changes may have been missed: read the table again. ``event.cause`` says why."""
table_reloaded = Signal()
"""Heroku Connect has cleared a table and filled it again; ``event.counts`` says what came of it. No ``instance``."""
table_resynced = Signal()
"""A newly mapped field was filled in all records; ``event.counts`` says in how many. No ``instance``."""
record_linked = Signal()
"""A row that the app made has got its sfid. Only of read-write mappings."""
sync_failed = Signal()
"""Salesforce refused what the app wrote; ``message`` is its answer (``_hc_err``). Only of read-write mappings."""
