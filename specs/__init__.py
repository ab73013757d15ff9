"""Models of the protocol, which Spin searches completely: ``make specs``; docs/specs.md says what they cover."""
