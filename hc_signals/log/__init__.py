"""The change log: what capture writes and consumers read.

Tables that this package owns, all in schema ``public`` (``migrations_sql/``)::

    hc_signals_change      every captured change, gap, snapshot and reload; eight buckets of twelve hours
    hc_signals_layout      the columns of images, which the images themselves do not name
    hc_signals_log         a view of hc_signals_change with both images as JSON; slower, for people
    hc_signals_position    how far each consumer is in each of its shards; a new row per page
    hc_signals_control     one row: the identity of the server, the pause switch, the size limit
    hc_signals_passed      tables whose changes a consumer skipped because it had no model
    hc_signals_minute      what each worker process did, minute by minute, for 96 hours
    hc_signals_heard       the calls of receivers, a row per page; eight buckets, like the log

The way of a change through the log::

    capture function (SQL), append.py --> hc_signals_change: bucket 0 .. 7 --> rotation.py, limit.py (TRUNCATE)
                                                   |                                 ^
                                                   v                                 |  all consumers have got it
       claims.py ---> Claim: open_window -> page -> delivery -> Claim.append --> hc_signals_position

A consumer reads the difference of two snapshots; the proof of it is in :mod:`~hc_signals.log.window`. Only a
:class:`~hc_signals.log.claims.Claim` can append a position, so one worker at a time moves a shard.

``schema``      files of SQL, buckets, causes of gaps, and whether the log exists
``change``      Change: one row of the log; its columns, its shard, and where a page is cut
``position``    LogShard, Position, Standing: values
``append``      appends gaps, snapshots, missing records, ends of reloads; wakes the worker
``images``      reads images as rows that the database types
``window``      opens a window, reads its pages, closes it
``positions``   reads the standing of a shard; appends and prunes positions
``passed``      records skipped changes and reports them as gaps
``heard``       collects, appends and reads the calls of receivers
``record``      finds the changes of one record, and keeps the index of records
``minutes``     appends and reads the table of minutes; ``histogram`` counts seconds between fixed bounds
``freshness``   measures the time from Salesforce's systemmodstamp to the capture
``presence``    shows which consumers have a running worker
``rotation``    empties old buckets; ``limit`` keeps the log below MAX_LOG_MB
``claims``      claims shards for a transaction, or on a connection of its own
``layout``      gives a consumer its first position or its new shards, one worker at a time
``restoring``   takes over a log from another server, before anything is read
``tail``        shows people the changes as they become visible, without a consumer
``backlog``, ``figures``, ``past``, ``consumers``: count, show and replay changes; list and remove consumers

This package never calls a receiver, knows no model of the project except to type images, and never makes a writer wait:
it takes strong locks by LOCK ... NOWAIT only.
"""
