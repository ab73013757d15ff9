"""The measured Django app: four tables of 25 columns, and receivers."""
