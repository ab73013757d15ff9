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

A call can break more than its savepoint: it ends the transaction, or closes the connection. An error of a query that
bypasses Django breaks the transaction. So does a syntax error in a call's first query, because the server parses a
message as a whole before it runs the SAVEPOINT in it. Then ``IsolationLost`` is raised, and the page is delivered
again, carefully: with a message before and after each call, which shows the call that made a fault.

With ``ATOMIC = False`` no transaction spans the page, and what a receiver writes is committed at once. A message of its
own checks the settings after each call that has run a query. A connection that is not as it was before is closed.

``message`` sends several statements in one message; ``session`` is what the server's session has of ours;
``transaction`` has Isolation: what is sent between two calls of a page, and what its check finds. ``call`` has the
context managers of one call; ``careful`` the careful delivery, and the receivers that have broken a page.

The package owns no table. It must never roll back the writes of another call than the failed one. It must never add a
round trip to a call that behaves.
"""
