# The example project with hc_signals, for docker-compose.yml.
FROM python:3.12-slim
RUN useradd --create-home app
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY hc_signals hc_signals
COPY migrations_sql migrations_sql
RUN pip install --no-cache-dir .
COPY example example
USER app
WORKDIR /app/example
ENV PYTHONUNBUFFERED=1
CMD ["python", "manage.py", "hc_listen"]
