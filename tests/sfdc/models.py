"""Connected models in shapes that the example does not have."""

from django.db import models
from example.crm.models import Contact

from hc_signals.db import models as hc_models


class User(hc_models.HerokuConnectModel):
    """A reserved word in SQL, and an object without IsDeleted."""

    sf_object_name = "User"
    username = hc_models.Text(sf_field_name="Username", max_length=80)


class Everything(hc_models.HerokuConnectModel):
    """One field of every class."""

    sf_object_name = "Everything__c"
    sf_access = hc_models.READ_WRITE

    any_type = hc_models.AnyType(sf_field_name="Any_Type__c")
    other_id = hc_models.ID(sf_field_name="Other_Id__c", unique=False)
    external_id = hc_models.ExternalID(sf_field_name="External_ID__c")
    checkbox = hc_models.Checkbox(sf_field_name="Checkbox__c")
    number = hc_models.Number(sf_field_name="Number__c", max_digits=18, decimal_places=2)
    currency = hc_models.Currency(sf_field_name="Currency__c", max_digits=18, decimal_places=2)
    percent = hc_models.Percent(sf_field_name="Percent__c", max_digits=5, decimal_places=2)
    whole = hc_models.Number(sf_field_name="Whole__c", max_digits=8, decimal_places=0)
    date = hc_models.Date(sf_field_name="Date__c")
    date_time = hc_models.DateTime(sf_field_name="Date_Time__c")
    time = hc_models.Time(sf_field_name="Time__c")
    email = hc_models.Email(sf_field_name="Email__c")
    encrypted = hc_models.EncryptedString(sf_field_name="Encrypted__c", max_length=175)
    phone = hc_models.Phone(sf_field_name="Phone__c")
    picklist = hc_models.Picklist(sf_field_name="Picklist__c", choices=[("a", "A"), ("b", "B")])
    text = hc_models.Text(sf_field_name="Text__c", max_length=255)
    text_area = hc_models.TextArea(sf_field_name="Text_Area__c")
    text_area_long = hc_models.TextAreaLong(sf_field_name="Text_Area_Long__c")
    url = hc_models.URL(sf_field_name="Url__c")
    integer = hc_models.Integer(sf_field_name="Integer__c")
    formula = hc_models.FormulaText(sf_field_name="Formula__c")
    multi_picklist = hc_models.MultiPicklist(sf_field_name="Multi_Picklist__c", choices=[("a", "A"), ("b", "B")])
    tags = hc_models.MultiPicklist(sf_field_name="Tags__c")
    location = hc_models.Geolocation(sf_field_name="Location__c")
    lookup = hc_models.Lookup(
        User, sf_field_name="Lookup__c", to_field="sf_id", on_delete=models.DO_NOTHING, related_name="+"
    )
    master_detail = hc_models.MasterDetail(
        User, sf_field_name="Master_Detail__c", to_field="sf_id", on_delete=models.DO_NOTHING, related_name="+"
    )


class EverythingProxy(Everything):
    class Meta:
        proxy = True


class Animal(hc_models.HerokuConnectModel):
    """A connected model with a connected child."""

    sf_object_name = "Animal__c"
    sf_access = hc_models.READ_WRITE

    external_id = hc_models.ExternalID(sf_field_name="External_ID__c")
    name = hc_models.Text(sf_field_name="Name", max_length=80)


class Dog(Animal, hc_models.HerokuConnectModel):
    """A connected model whose parent is connected too."""

    sf_object_name = "Dog__c"

    animal = models.OneToOneField(
        Animal,
        on_delete=models.DO_NOTHING,
        to_field="external_id",
        parent_link=True,
        db_constraint=False,
        db_column="animal__c",
    )
    breed = hc_models.Text(sf_field_name="Breed__c", max_length=80)


class Kennel(Dog):
    """A Django-managed child of a child."""

    resident = models.OneToOneField(Dog, on_delete=models.CASCADE, parent_link=True, db_constraint=False)
    number = models.IntegerField()

    class Meta:
        managed = True


class Note(models.Model):
    """A model of Django with relations to Salesforce records, one for each ``on_delete``."""

    cascade = models.ForeignKey(
        Animal, models.CASCADE, to_field="external_id", db_constraint=False, null=True, related_name="+"
    )
    set_null = models.ForeignKey(
        User, models.SET_NULL, to_field="sf_id", db_constraint=False, null=True, related_name="+"
    )
    set_default = models.ForeignKey(
        User, models.SET_DEFAULT, to_field="sf_id", db_constraint=False, default="fallback", related_name="+"
    )
    protect = models.ForeignKey(
        User, models.PROTECT, to_field="sf_id", db_constraint=False, null=True, related_name="+"
    )
    restrict = models.ForeignKey(
        User, models.RESTRICT, to_field="sf_id", db_constraint=False, null=True, related_name="+"
    )
    nothing = models.ForeignKey(
        User, models.DO_NOTHING, to_field="sf_id", db_constraint=False, null=True, related_name="+"
    )
    text = models.TextField()


class DatabaseNote(models.Model):
    """The same with the ``on_delete`` rules of the database in Django 6.1; before, with Django's."""

    cascade = models.ForeignKey(
        User,
        getattr(models, "DB_CASCADE", models.CASCADE),
        to_field="sf_id",
        db_constraint=False,
        null=True,
        related_name="+",
    )
    set_null = models.ForeignKey(
        User,
        getattr(models, "DB_SET_NULL", models.SET_NULL),
        to_field="sf_id",
        db_constraint=False,
        null=True,
        related_name="+",
    )
    set_default = models.ForeignKey(
        User,
        getattr(models, "DB_SET_DEFAULT", models.SET_DEFAULT),
        to_field="sf_id",
        db_constraint=False,
        default="of Django",
        db_default="of the database",
        related_name="+",
    )
    text = models.TextField()


class Comment(models.Model):
    """A row that is deleted with its Note, and so with a Salesforce record."""

    note = models.ForeignKey(Note, models.CASCADE)


WIDE_COLUMNS = 400


class Wide(hc_models.HerokuConnectModel):
    """A large Salesforce object, with WIDE_COLUMNS columns."""

    sf_object_name = "Wide__c"


for _number in range(WIDE_COLUMNS):
    hc_models.Text(sf_field_name=f"Column_{_number}__c", max_length=255).contribute_to_class(Wide, f"column_{_number}")


class Visit(hc_models.HerokuConnectModel):
    """Refers to its parents by their external ids: they may be new too."""

    sf_object_name = "Visit__c"
    sf_access = hc_models.READ_WRITE

    external_id = hc_models.ExternalID(sf_field_name="External_ID__c")
    contact = hc_models.Lookup(
        Contact,
        sf_field_name="Contact__r__External_ID__c",
        to_field="external_id",
        on_delete=models.DO_NOTHING,
        null=True,
        related_name="+",
    )
    earlier = hc_models.Lookup(
        "self",
        sf_field_name="Earlier__r__External_ID__c",
        to_field="external_id",
        on_delete=models.DO_NOTHING,
        null=True,
        related_name="+",
    )
