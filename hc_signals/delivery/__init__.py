"""The way of a change from a page of the log to its receivers; failed deliveries, retries, replay."""
