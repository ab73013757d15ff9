"""Heroku Connect itself: its REST API, its mapping configuration, its tables as models, its trigger log.

The rest of hc_signals watches what Heroku Connect writes. This package asks and configures Heroku Connect. It owns no
table: Heroku Connect creates the mapped tables, the trigger log and its archive.

::

    Heroku's REST API  <---- api
         ^                    |
         | import             v
    mapping (JSON)     states of connections and mappings
         ^    |
    mappings  |  inspection <---- columns of the mapped tables
         |    v    |
      connected models  ---->  hc_inspect --check: differences

    the app writes a row --> trigger log --> Salesforce
                                  |
                             trigger_log: read, retry

Modules:

    api                     client of the REST API; check_health() lists connections and mappings in a bad state
    polling                 evidence in the database whether Heroku Connect polls Salesforce
    mappings                makes a mapping from models, reads one from a file, compares both
    inspection/read         reads mapped objects from the tables or from a mapping
    inspection/fields       chooses a field class for a column
    inspection/names        chooses unique class and attribute names
    inspection/code         writes the models as Python code
    inspection/differences  compares models with the tables
    trigger_log/words       states and actions of the trigger log, and a parser of its records
    trigger_log/models      TriggerLog and TriggerLogArchive, with redo()

The commands ``hc_inspect`` and ``hc_mappings``, the admin, ``hc_status`` and the health check use it. Nothing on a
change's way from the trigger to a receiver imports it. So an outage of the API cannot delay a change. import-linter
holds that, except for ``hc_signals.models``, where Django finds the models of the trigger log. The token of the API is
in no log, output or error message.
"""
