"""The app of which each tenant of django-tenants' check has tables."""
