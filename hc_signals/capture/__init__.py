"""Capture: the triggers that append every change to the log, and everything that keeps them installed and working.

A trigger calls a generated function in the transaction of the writer, and the function appends the changed rows::

    Heroku Connect:  INSERT, UPDATE, DELETE, TRUNCATE on salesforce.account
          |  same transaction
          v
    triggers         one per operation, at statement level, WHEN a rule of ORIGINS fits the session
          v
    function         compares old and new rows   ----->  hc_signals_change (the log)
          |  on an error: whole rows, then a gap         hc_signals_cleared, _reload, _refill (a reload)
          v
    Heroku Connect's statement succeeds

    hc_listen:       drift  ->  repairing  ->  outages  ->  rereading
                     check      install        report       append the rows that may have changed
                                               the gap

Generated SQL: ``function`` (the capture function of one table), ``function_columns`` (the columns that it was generated
for, written into its source), ``function_reload`` (its parts that recognise a reload), ``triggers``.

Installed capture: ``status`` (is a table captured: installed, outdated, disabled, missing, absent, unsupported),
``installed`` (the functions that a session has read, what they should be), ``install`` (installs and removes triggers
and functions), ``orphans`` (capture without a model).

What happens over time: ``table_state`` (the state of each table in ``hc_signals_table``), ``drift`` (compares status
and state of all tables by one query; names the cause of a gap), ``outages`` (removes and restores capture of one table
so that its gap is reported), ``repairing`` (what ``hc_listen`` does about drift), ``pausing`` (the kill switch),
``snapshots`` (appends rows as they are now), ``rereading`` (the tables that ``hc_signals_table`` lists), ``reloads``
(finds the end of reloads), ``probe`` (notes all statements for a time).

This package owns ``hc_signals_table``, ``hc_signals_unlogged``, ``hc_signals_cleared``, ``hc_signals_reload``,
``hc_signals_refill`` and the columns of ``hc_signals_control`` that pause capture. Which columns count as a change is
decided in ``hc_signals.tables``.

It must never make a statement of Heroku Connect fail or wait for long: a capture function raises no error, a trigger
names no column, and an installer waits at most LOCK_TIMEOUT for a table. It must never call a receiver. The digest in a
function's last line decides whether capture is outdated: another byte in the generated text makes every installed
function outdated.
"""
