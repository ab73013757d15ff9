"""An admin in which users write comments."""

from django.contrib import admin

from feedback.models import Comment


@admin.register(Comment)
class CommentAdmin(admin.ModelAdmin):
    list_display = ["text", "user"]
    autocomplete_fields = ["user"]
