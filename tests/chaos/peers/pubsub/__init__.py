"""A project of django-pgpubsub for the comparison."""
