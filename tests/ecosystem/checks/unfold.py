"""django-unfold: another design of the admin."""

PACKAGES = ("django-unfold",)
FIRST = ["unfold"]
