"""Keeps the receiver calls of one page apart: a failed call is rolled back alone.

Each call gets a savepoint, made at the call's first query. A receiver that runs no query costs nothing. The savepoint
travels in the message of that query, and so does everything else between two calls. So a receiver that writes costs no
round trip of ours:

    receiver A queries     SAVEPOINT even; SELECT …
    receiver B queries     check A's settings; RELEASE even; SAVEPOINT odd; UPDATE …
    the page ends          check B's settings; our own limits; INSERT … hc_signals_position
    COMMIT

A check compares the session's settings with those before the first call. It runs in a later message than the call. So
a call can turn out to have failed after its receiver has returned: it is rolled back, and its delivery is stored like
any other failure.

Some statements go to psycopg directly, past Django: ``cursor.copy()``, ``connection.connection.execute()``. If one of
them is a call's first statement, the savepoint gets a message of its own before it.

A call can break more than its savepoint: it ends the transaction, or closes the connection. So does a syntax error in a
call's first query, because the server parses a message as a whole before it runs the SAVEPOINT in it. Then
``IsolationLost`` is raised, and the page is delivered again, carefully: with a message before and after each call,
which shows the call that made a fault.

With ``ATOMIC = False`` no transaction spans the page, and what a receiver writes is committed at once. A message of its
own checks the settings after each call that has run a query. A connection that is not as it was before is closed. The
same holds for ``on_commit`` hooks, which run after the commit.

``message`` sends several statements in one message; ``session`` is what the server's session has of ours;
``transaction`` has Isolation: what is sent between two calls of a page, and what its check finds. ``call`` has the
context manager of one call, ``outside`` that of a call or hook outside a transaction. ``driver`` watches psycopg's
connection during a call, ``others`` the project's other databases. ``careful`` has the careful delivery, and the
receivers that have broken a page.

The package owns no table. It must never roll back the writes of another call than the failed one. It must never add a
round trip to a call that behaves.
"""
