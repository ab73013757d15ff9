"""The Django app that is measured: four tables of 25 columns, and receivers."""
