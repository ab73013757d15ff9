"""The commands of ``manage.py``, and the parts that they share.

This package owns no table and decides nothing: a command reads its arguments, calls the package that does the work,
and prints the result. The way of one command::

    manage.py hc_replay --since 2h --receiver crm.receivers.on_account
        |
    arguments     text -> number, time, replay id     wrong usage: exit 2
        |
    command       OwnCommand.execute()                wrong database, setting or state: one sentence, exit 1
        |
    choice        names -> models, receivers          unknown name: the names that exist, exit 1
        |
    commands/     hc_replay.Command.handle()  ->  hc_signals.delivery.replay
        |                                 |
    progress      how far it is     interruption      Ctrl-C, SIGTERM: ends in good order, exit 130 or 143

arguments     Types of options for argparse: numbers, times, replay ids, ports.
choice        Turns names of models and receivers into models, and suggests the nearest names.
command       The base class: ``--database``, errors in one sentence, the check for the change log.
interruption  The first Ctrl-C or SIGTERM ends a command in good order, the second ends it at once.
progress      One line that is redrawn on a terminal, or one line every few seconds elsewhere.
commands      One module per command.

Rules that hold for every command:

- An error of the user, of hc_signals or of the database ends it with one sentence on stderr: what was found, what was
  expected, what to do. ``OwnCommand.execute`` is the place that turns such an error into a ``CommandError``.
- A user never sees a traceback, and no line quotes a value of a record.
- Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 128 plus the signal's number after an interruption.
- A long command that is interrupted prints the command that continues.
- Times are shown in the project's time zone, by :func:`hc_signals.postgres.moments.shown`.
"""
