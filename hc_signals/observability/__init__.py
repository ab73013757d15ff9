"""Shows how hc_signals is doing: hc_status, metrics, ``/healthz``, spans and the log of hc_listen.

This package owns no table. It reads those of the other packages, and writes nothing to the database::

      the database                            the workers of this process
           |                                       |  report calls, pages, turns
        survey ------+--------------+         +----+-----+-----------+
           |         |              |         |          |           |
         judge    the admin     surveyor   liveness   metrics     tracing
           |                        |         |          |
       hc_status                    +---------+----------+
                                              |
                                   metrics_server: /metrics, /healthz; otlp: a push

A *fact* is a value that one query reads, such as a backlog. A *verdict* says whether a fact is a problem. A *finding*
is a fact with its verdict and its remedy: one line of hc_status. All outputs read their facts from one survey, so they
agree about them.

survey          The facts about one database, each read once, when a caller first asks for it.
judge           The verdicts of hc_status, one module per part of the system.
findings        The form of a finding, and every problem with its verdict and its remedy.
runbook         The section of docs/operations.md about a problem.
surveyor        A thread that reads the figures for the metrics every 15 seconds.
liveness        The state of the process for ``/healthz``, without a query.
metrics         Hands all figures to prometheus_client; hc_signals.delivery.counting counts.
measuring       Reads the figures while they are served or pushed.
metrics_server  Serves both pages over HTTP.
otlp            Pushes the metrics by OpenTelemetry's protocol.
tracing         Spans of OpenTelemetry.
log_format      The lines that hc_listen prints.

Rules that hold for every module here:

- No output quotes a value of a record: no line, label, span or fact. hc_status shows Salesforce's own message if the
  user asks for it with ``--verbose``.
- A statement of a survey takes 5 seconds at most. A scrape and ``/healthz`` do not query the database at all.
- A check that lacks a right, or takes too long, becomes a finding. It does not keep the others from running.
- Delivery does not import this package. A worker reports to the observers of its process, and delivers without any.
"""
