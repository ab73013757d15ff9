"""The public signals. Each is sent with ``sender`` (the model), ``instance``, ``event`` and ``using``.

As with Django's own signals of models, ``sender`` may be given to ``connect()`` as a text: ``"crm.Account"``.
"""

from django.db.models.signals import ModelSignal

record_created = ModelSignal()
"""A record was created in Salesforce, or came back from its recycle bin."""
record_updated = ModelSignal()
"""A mapped field of a record changed in Salesforce."""
record_deleted = ModelSignal()
"""A record was deleted in Salesforce; ``instance`` is its last state."""
record_changed = ModelSignal()
"""Sent for each of the three changes above, and for a SNAPSHOT by hc_backfill."""
records_changed = ModelSignal()
"""Sent once per model and page, with ``events=[...]`` instead of ``instance`` and ``event``: for bulk work."""
record_linked = ModelSignal()
"""Salesforce has given its sfid to a row that the app created, in a read-write mapping."""
sync_failed = ModelSignal()
"""Salesforce has refused a write of the app, in a read-write mapping. ``message`` is the answer (``_hc_err``)."""
gap_detected = ModelSignal()
"""Changes may have been missed: read the table again. ``event.cause`` says why."""
table_reloaded = ModelSignal()
"""Heroku Connect has cleared a table and filled it again. ``event.counts`` has the result; there is no ``instance``."""
table_resynced = ModelSignal()
"""A newly mapped field was filled in all records. ``event.counts`` has their number; there is no ``instance``."""
