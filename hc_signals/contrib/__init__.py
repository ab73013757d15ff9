"""Adapters for other packages. Each one needs that package, and a project imports the adapters that it uses.

They let connected models keep their values in the forms of other packages, as :mod:`hc_signals.db.forms` does in
Django's. The package owns no table.

::

    Salesforce's value  -->  serializer, export file  -->  the same value, if it was not edited

    health_check     a check for django-health-check 4: the states of Heroku Connect's connections and mappings
    rest_framework   serializers of Django REST framework whose output is valid input
    import_export    resources of django-import-export whose unedited export changes nothing

No other module of hc_signals imports this package, and it never imports the change log or its worker.
"""
