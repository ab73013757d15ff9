# The example project with hc_signals, for docker-compose.yml: built in one image, run from a smaller one without pip's
# cache and build tools, by a user who owns nothing that runs.
FROM python:3.12.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY hc_signals hc_signals
COPY migrations_sql migrations_sql
RUN /venv/bin/pip install . dj-database-url gunicorn whitenoise

FROM python:3.12.11-slim-bookworm
RUN useradd --system --no-create-home --uid 10001 app
COPY --from=build /venv /venv
COPY example /app/example
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app/example
USER app
CMD ["python", "manage.py", "hc_listen"]
