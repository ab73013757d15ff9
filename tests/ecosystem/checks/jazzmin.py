"""django-jazzmin: another design of the admin."""

PACKAGES = ("django-jazzmin",)
FIRST = ["jazzmin"]
