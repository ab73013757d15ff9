"""Real Salesforce sample records go through the simulator, and every delivered instance equals its record."""

import datetime
import decimal
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import isolate_apps

from hc_signals import signals
from hc_signals.capture.install import install_capture
from hc_signals.conf import Conf
from hc_signals.db import models as hc_models
from hc_signals.testing import HerokuConnect
from hc_signals.worker.loop import Worker

SAMPLES = Path(__file__).parent.parent.parent / "shared" / "data" / "salesforce"

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no sample records in {SAMPLES}")

DATE = re.compile(r"\d{4}-\d\d-\d\d")
DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)")


def sample_records() -> dict[str, list[dict[str, Any]]]:
    """Return all records of the sObject trees by object name, without references to other records."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(SAMPLES.rglob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        records = content.get("records", []) if isinstance(content, dict) else []
        for record in records:
            if isinstance(record, dict) and "attributes" in record:
                plain = {k: v for k, v in record.items() if not isinstance(v, dict | list)}
                found[record["attributes"]["type"]].append({k: v for k, v in plain.items() if not is_reference(v)})
    return found


def is_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("@")


def field_for(name: str, values: list[Any]) -> Any:
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in present):
        return hc_models.Checkbox(sf_field_name=name)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return hc_models.Number(sf_field_name=name, max_digits=17, decimal_places=8)
    if all(isinstance(value, str) and DATE_TIME.fullmatch(value) for value in present):
        return hc_models.DateTime(sf_field_name=name)
    if all(isinstance(value, str) and DATE.fullmatch(value) for value in present):
        return hc_models.Date(sf_field_name=name)
    return hc_models.TextAreaLong(sf_field_name=name)


def python_value(field: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(field, hc_models.Number):
        return decimal.Decimal(repr(float(value)))
    if isinstance(field, hc_models.DateTime):
        return datetime.datetime.fromisoformat(value)
    if isinstance(field, hc_models.Date):
        return datetime.date.fromisoformat(value)
    return value if isinstance(field, hc_models.Checkbox) else str(value)


def model_for(object_name: str, records: list[dict[str, Any]]) -> Any:
    names = sorted({name for record in records for name in record} - {"Id", "IsDeleted", "SystemModstamp"})
    fields = {f"f_{name.lower()}": field_for(name, [r.get(name) for r in records]) for name in names}
    meta = type("Meta", (), {"app_label": "sfdc"})
    body = {"__module__": __name__, "Meta": meta, "sf_object_name": object_name, **fields}
    return type(f"Sample{object_name}", (hc_models.HerokuConnectModel,), body)


@isolate_apps("tests.sfdc")
def test_every_sample_record_arrives_unchanged(heroku: HerokuConnect, connect: Any) -> None:
    samples = sample_records()
    assert sum(map(len, samples.values())) > 500
    heroku.drop_schemas()
    expected: dict[tuple[str, str], dict[str, Any]] = {}
    got: dict[tuple[str, str], dict[str, Any]] = {}

    def on_created(instance: Any, **kwargs: Any) -> None:
        loaded = type(instance).objects.get(pk=instance.pk)
        assert loaded.__dict__.keys() == instance.__dict__.keys()
        values = {f.name: getattr(instance, f.name) for f in instance._meta.fields if f.name.startswith("f_")}
        if values == {name: getattr(loaded, name) for name in values}:
            got[instance.sf_object_name, instance.sf_id] = values

    models = []
    for object_name, records in samples.items():
        model = model_for(object_name, records)
        simulator = HerokuConnect(models=[model])
        simulator.create_tables()
        assert install_capture(model, "default").state == "installed"
        connect(signals.record_created, on_created, model)
        values = [
            {f.name: python_value(f, record.get(f.sf_field_name)) for f in model._meta.fields if f.name[:2] == "f_"}
            for record in records
        ]
        for start in range(0, len(values), 300):
            batch = values[start : start + 300]
            sfids = simulator.insert(model, *batch)
            expected |= {(object_name, sfid): v for sfid, v in zip(sfids, batch, strict=True)}
        models.append(model)
    worker = Worker("default", Conf(), models)
    worker.deliver_once()
    assert worker.delivered == len(expected)
    assert got == expected
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM public.hc_signals_delivery")
        assert cursor.fetchone() == (0,)
