"""The project's own check of Heroku Connect."""

from django.conf import settings
from django.http import JsonResponse
from heroku_connect import utils


def status(request):
    connections = utils.get_connections(settings.HEROKU_CONNECT_APP_NAME)
    bad = [each["name"] for each in connections if each["state"] not in utils.ConnectionStates.OK_STATES]
    return JsonResponse({"bad": bad}, status=503 if bad else 200)
