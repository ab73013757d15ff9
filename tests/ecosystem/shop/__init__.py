"""The project's own app: its models are those that the check declares."""
