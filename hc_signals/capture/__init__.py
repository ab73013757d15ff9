"""Capture: the triggers that append every change to the log, and everything that keeps them installed and working.

Heroku Connect writes to a connected table. A trigger of that table calls a generated function, in the same transaction,
and the function appends the changed rows to the log::

    Heroku Connect:  INSERT, UPDATE, DELETE, TRUNCATE on salesforce.account
          |  same transaction
          v
    triggers         one per operation, at statement level, WHEN xmlbinary = 'hex'
          |
          v
    function         compares old and new rows   ----->  hc_signals_change (the log)
          |  on an error: whole rows, then a gap         hc_signals_cleared, _reload, _refill (a reload)
          v
    Heroku Connect's statement succeeds

    hc_listen:       drift  ->  repairing  ->  outages  ->  rereading
                     check      install        report       append the rows that may have changed
                                               the gap

Generated SQL, from the lowest layer:

- ``function_columns``: the columns that a function was generated for, written into its source.
- ``function_reload``: the parts of a function that recognise a reload.
- ``function``: the capture function of one table.
- ``triggers``: the triggers of one table.

Installed capture:

- ``status``: whether each table is captured: installed, outdated, disabled, missing, absent, unsupported.
- ``install``: installs and removes triggers and functions.
- ``orphans``: finds and removes capture without a model.

What happens over time:

- ``table_state``: the state of each table in ``hc_signals_table``.
- ``drift``: compares status and state of all tables by one query; names the cause of a gap.
- ``outages``: removes and restores capture of one table so that its gap is reported.
- ``repairing``: what ``hc_listen`` does about drift.
- ``pausing``: the kill switch, ``hc_triggers pause`` and ``resume``.
- ``snapshots``: appends rows as they are now, for backfills and rereads.
- ``rereading``: rereads the tables that ``hc_signals_table`` lists.
- ``reloads``: finds the end of reloads.

This package owns ``hc_signals_table``, ``hc_signals_unlogged``, ``hc_signals_cleared``, ``hc_signals_reload``,
``hc_signals_refill`` and the row of ``hc_signals_control`` that pauses capture. Which columns count as a change is
decided in ``hc_signals.tables``.

It must never make a statement of Heroku Connect fail or wait for long: a capture function raises no error, a trigger
names no column, and an installer waits at most LOCK_TIMEOUT for a table. It must never call a receiver. It must not
import ``hc_signals.delivery`` or ``hc_signals.heroku``. The digest in a function's last line decides whether
capture is outdated: another byte in the generated text makes every installed function outdated.
"""
