"""The index of django-haystack's check; no other package imports it."""

from haystack import indexes

from tests.ecosystem.shop.models import Lead


class LeadIndex(indexes.SearchIndex, indexes.Indexable):
    """Indexes the company."""

    text = indexes.CharField(document=True, model_attr="company")

    def get_model(self) -> type:
        """Return the model."""
        return Lead
