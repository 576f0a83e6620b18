# The image of the migrations: `syntegra-db` with PostgreSQL's client programs. `make image` builds it; docs/guides/deploy.md uses it.
# A base image needs Python 3.11 or later with venv, on Debian; with PostgreSQL 18's client programs, none are installed.
ARG BASE_IMAGE=python:3.13-slim-trixie

FROM ${BASE_IMAGE} AS build
# The wheels that `make image` has downloaded, if it has: then the build needs no package index.
COPY constraints-image.txt .wheel[s] /wheels/
COPY pyproject.toml README.md LICENSE /source/
COPY alembic /source/alembic
COPY syntegra_db /source/syntegra_db
# pip, and what only builds the wheel, are not in the result.
RUN set -eu; \
  python3 -m venv /opt/syntegra-db; \
  pip="/opt/syntegra-db/bin/python -m pip --disable-pip-version-check --no-cache-dir"; \
  for wheel in /wheels/*.whl; do \
    if [ -e "$wheel" ]; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels; fi; \
  done; \
  $pip install --quiet --require-hashes --only-binary :all: --requirement /wheels/constraints-image.txt; \
  $pip install --quiet --no-deps --no-build-isolation /source; \
  $pip uninstall --quiet --yes editables hatchling pip

FROM ${BASE_IMAGE}
ARG VERSION=unknown
LABEL org.opencontainers.image.title="syntegra-db" \
  org.opencontainers.image.description="Migrates, verifies and backs up the SYNTEGRA analytics schema on PostgreSQL" \
  org.opencontainers.image.licenses="MIT" \
  org.opencontainers.image.version="${VERSION}"
# Debian's own client is older than PostgreSQL 18, and pg_dump must not be older than the server.
RUN set -eu; \
  if ! [ -x /usr/lib/postgresql/18/bin/pg_dump ]; then \
    apt-get update --quiet=2; \
    apt-get install --quiet=2 --yes --no-install-recommends ca-certificates postgresql-common; \
    /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y; \
    apt-get install --quiet=2 --yes --no-install-recommends postgresql-client-18; \
    rm -rf /var/lib/apt/lists/*; \
  fi; \
  groupadd --gid 10001 syntegra; \
  useradd --uid 10001 --gid 10001 --no-create-home --home-dir /backups --shell /usr/sbin/nologin syntegra; \
  install --directory --owner=syntegra --group=syntegra --mode=0700 /backups
COPY --from=build /opt/syntegra-db /opt/syntegra-db
ENV PATH=/opt/syntegra-db/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Kubernetes checks `runAsNonRoot` by a number. `syntegra-db backup` writes to backups/ of the working directory.
USER 10001
WORKDIR /backups
ENTRYPOINT ["syntegra-db"]
CMD ["--help"]
