"""Delivers changes: from a page of the log to the receivers of Django's signals.

    log.page ──▶ Shard.deliver_page          one claimed shard, one page, one transaction
                   ├─ Retries                due deliveries first, one receiver each
                   ├─ Page                   reads the page's records, one query per table
                   │    │ routing: which signals a change sends
                   │    ▼
                   │  SignalSender           parks a change behind an earlier failure of its record
                   │    │ listeners: which receivers are connected
                   │    ▼
                   │  Dispatcher             calls receivers one by one
                   │    │ isolation: a savepoint each, made at the receiver's first query
                   │    ▼
                   │  the receiver           fails? FailureStore stores the delivery, to be retried
                   ▼
                 log.append                  the new position; receivers' writes commit with it

The package owns three tables: ``hc_signals_delivery`` (failed and parked deliveries), ``hc_signals_run`` and
``hc_signals_call`` (which process runs, and which call may have ended one).

It must never commit a position without the effects of its changes. It must never call a receiver while an earlier
change of the same record waits for that receiver. A receiver may raise, break its transaction, fork, or end the
process: no other receiver, record or worker may fail because of it.

    shard, replay        a page of a shard (read this first); past changes of the log again
    dry_run              a replay that is rolled back, and its report
    again                a past change once more to one receiver, because a user asks for it
    page, retrying       one page: its records, signals and events; one more call for each due delivery
    ahead                reads the next page while receivers run
    sending, dispatch    a signal to the receivers that may be called now; the calls, one by one
    isolation, calls     keeps calls apart; the value that describes one
    fatal_calls          finds calls that end the process
    failure_log          the lines about failed calls, and their number in an outage
    failures             stores failed deliveries; which shards wait
    waiting, app_writes  deliveries that wait for a settled value; the app's writes that replace values of a change
    stored               chooses stored deliveries. interventions: retry and discard by hand
    event, records       the event of a change; the records of a page
    instances            model instances from rows. relatives: proxies and children
    routing, listeners   which signals a change sends; which receivers are connected
    identity             names receivers, by connections and fingerprints
    gaps, on_delete      gaps as changes; the rules of ``on_delete`` as a receiver
    project_code         contains the project's code and logs its exceptions. pulse: what a thread does now
    counting             counts pages and calls, for the metrics and the table of minutes
"""
