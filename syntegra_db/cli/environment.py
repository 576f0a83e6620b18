"""The environment variables that the commands read, for `--help`."""

from __future__ import annotations

DATABASE_VARIABLES = {
    "DATABASE_URL": "postgresql://user:password@host:5432/database",
    "POSTGRES_HOST": "without DATABASE_URL: the host  [default: localhost]",
    "POSTGRES_PORT": "its port  [default: 5432]",
    "POSTGRES_DB": "the database  [default: syntegra_db]",
    "POSTGRES_USER": "the user  [default: syntegra_user]",
    "POSTGRES_PASSWORD": "the password",
}
LOCK_VARIABLES = {
    "SYNTEGRA_LOCK_TIMEOUT": "seconds to wait for one lock  [default: 0.5]",
    "SYNTEGRA_LOCK_RETRY_TIMEOUT": "seconds for all attempts  [default: 60]",
    "SYNTEGRA_MIGRATION_LOCK_TIMEOUT": "seconds to wait for another migration  [default: 60]",
}
LOG_FORMAT_VARIABLE = "SYNTEGRA_LOG_FORMAT"
OTHER_VARIABLES = {
    LOG_FORMAT_VARIABLE: "text or json, as --log-format",
    "NO_COLOR": "if set, no headings in bold",
    "PG…": "libpq's, such as PGSSLMODE, PGSERVICE or PGPASSFILE",
}


def _paragraph(heading: str, *groups: dict[str, str]) -> str:
    variables = {name: text for group in groups for name, text in group.items()}
    width = max(map(len, variables))
    lines = [f"  {name:<{width}}  {text}" for name, text in variables.items()]
    # The first line keeps Click from wrapping the others.
    return "\n".join(["\b", heading, *lines])


_ALSO_IN_DOTENV = "Environment variables, also read from .env:"
# The ends of the help texts.
DATABASE = _paragraph(_ALSO_IN_DOTENV, DATABASE_VARIABLES)
DATABASE_AND_LOCKS = _paragraph(_ALSO_IN_DOTENV, DATABASE_VARIABLES, LOCK_VARIABLES)
EVERY = f"{DATABASE_AND_LOCKS}\n\n{_paragraph('Environment variables that .env does not set:', OTHER_VARIABLES)}"
