"""Checks recorded runs of the real workers against the rules of the models: ``make follows``, docs/specs.md.

    python -m specs.follows DIRECTORY...

tests/chaos/recorder.py writes a directory: the steps of each process, and the log of changes as it was at the end. The
checker merges the steps by time and plays them as a state machine. It has only the guards of the models, and nothing
of hc_signals. Each refusal names the first step that a model does not allow, the model, and the promise that would be
broken. A run without a late commit, a takeover, or a race at falling asleep is refused: it proves nothing.

The network and the server may fail between a step and its outcome. So a lock is known to be held only from the answer
that it was taken until it was given back, and only if that succeeded. A transaction whose COMMIT had no answer is
resolved by the next position that is read under the claim.

- ``record``: the files of a record, snapshots, the log
- ``writers``: when writers share locks, notify and commit
- ``delivered``: what claims and transactions did, and what each consumer was delivered
- ``reader``: reader.pml, handover.pml, and the worker of gap.pml
- ``bell``: doorbell.pml
- ``report``: what was accepted or refused
- ``check``: plays a record
"""
