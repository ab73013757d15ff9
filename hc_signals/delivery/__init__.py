"""Delivers changes: from a page of the log to the receivers of Django's signals.

    log.page ──▶ Shard.deliver_page          one claimed shard, one page, one transaction
                   │
                   ├─ Retries                due deliveries first, one receiver each
                   ├─ Page                   reads the page's records, one query per table
                   │    │ routing: which signals a change sends
                   │    ▼
                   │  SignalSender           parks a change behind an earlier failure of its record
                   │    │ listeners: which receivers are connected
                   │    ▼
                   │  dispatch.send          calls receivers one by one
                   │    │ isolation: a savepoint each, made at the receiver's first query
                   │    ▼
                   │  the receiver           fails? FailureStore stores the delivery, to be retried
                   ▼
                 log.append                  the new position; receivers' writes commit with it

The package owns three tables: ``hc_signals_delivery`` (failed and parked deliveries), ``hc_signals_run`` and
``hc_signals_call`` (which process runs, and which call may have ended one). It reads the log through
:mod:`hc_signals.log`.

It must never commit a position without the effects of its changes. It must never call a receiver while an earlier
change of the same record waits for that receiver. A receiver may raise, break its transaction, fork, or end the
process: no other receiver, record or worker may fail because of it.

Modules, from the top:

    shard              claim, read, deliver, advance: read this first
    replay             sends past changes of the log again
    page, bulk         one page: its records, signals and events; ``records_changed`` once per model
    retrying           one more call for each due delivery
    ahead              reads the next page while receivers run
    sending            sends a signal; parks changes and stores failures
    event, records     the event of a change; the records of a page
    dispatch           calls receivers one by one
    isolation          keeps their calls apart
    fatal_calls        finds calls that end the process
    failures           stores failed deliveries; ``replay_failures`` does it for a replay
    interventions      retry and discard by hand
    routing            which signals a change sends
    listeners          which receivers are connected; connections, identity, fingerprints: their names
    instances          model instances from rows; relatives: proxies and children
    gaps, on_delete    gaps as changes; the rules of ``on_delete`` as a receiver
    waiting, unheard   shards with something to deliver; models without a receiver
    calls              the value that describes one call
    project_code       contains the project's code; receiver_errors: logs its exceptions
"""
