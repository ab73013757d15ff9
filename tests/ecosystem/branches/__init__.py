"""An app whose tables are in the schema of each tenant, for the check of django-tenants."""
