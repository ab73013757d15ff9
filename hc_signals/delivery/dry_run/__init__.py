"""The dry run of a replay: what would the receivers do with past changes? Everything is rolled back.

    PastChanges ──▶ DryRun.page               a page of the log; nothing of it is stored
                      │ one transaction per change, then one for the page's ``records_changed``: all rolled back
                      ▼
                    Page, SignalSender        as in a delivery
                      ▼
                    MeasuringDispatcher       counts rows, queries, seconds; notes whether the receiver asks
                      ▼
                    Report                    by receiver; it is saved, and compared with one of other code

    running       the dry run, its transactions on all databases, and the store that stores nothing
    measuring     one call: its queries, seconds, written rows and answer
    report        the figures of a dry run, also as JSON
    comparing     two reports about the same changes

The package owns no table. It must never commit: no write of a receiver, no delivery, no position. It must never be the
reason why PostgreSQL ends a statement of a worker.
"""
