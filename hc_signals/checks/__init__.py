"""The system checks: of relations between models, of the project, and of the database."""
