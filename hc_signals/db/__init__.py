"""Connected models: Django models of the tables that Heroku Connect owns, with fields, router and database backends.

A connected model names a Salesforce object and the fields that the project reads. Table and column names follow from
the names in Salesforce. Heroku Connect creates and fills the table; this package owns no table. Models and fields have
the same names as those of django-heroku-connect.

::

    Salesforce object  --  Heroku Connect  -->  table salesforce.account
                                                       ^
    class Account(HerokuConnectModel)                  |
        name = Text(sf_field_name="Name")  ----  column "name"
                                                       |
    HerokuConnectRouter: no migrations; no writes to a read-only model

Modules:

    models/base             HerokuConnectModel and its metaclass, which sets ``managed`` and ``db_table``
    models/fields           one field class per Salesforce type, and Geolocation
    models/multi_picklist   MultiPicklist, a list in Python and one text in the table
    models/related          Lookup and MasterDetail, without database constraints
    models/inheritance      multi-table children whose parent link points to an external id
    forms                   form fields that keep a value which a user did not edit
    values                  Python values that remember their spelling in the table
    router                  refuses writes to read-only models, and migrations of connected ones
    backends/               PostgreSQL and PostGIS with Heroku Connect's schema on the search path
    exceptions              errors of models and router

A value of Salesforce survives: if a program or a form reads and saves a record, no field changes that it did not edit.
The fields accept every value that the table has, even one that Django would refuse as a new value.

The package never creates, changes or drops a mapped table, except in test databases. It imports neither the change log
nor Heroku Connect's API.
"""
