"""What runs in the writer's transaction, and what keeps it there: capture functions, triggers, their installation,
reloads, drift, and the rows that are read again."""
