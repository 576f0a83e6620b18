"""How patient a migration is, by argument or by environment variable."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from syntegra_db.errors import SettingsError
from syntegra_db.settings import describe_dotenv_error, describe_validation_error

# lock_timeout is a 32-bit number of milliseconds.
MAX_SECONDS = 2_147_483


class MigrationOptions(BaseSettings):
    """Times in seconds; each is read from `SYNTEGRA_…` in the environment or `.env` unless it is given.

    The default of `lock_timeout` is the longest that a writer on a busy table waits behind a migration that itself
    waits, before the migration steps aside and tries again.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="SYNTEGRA_", env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    lock_timeout: float = Field(default=0.5, gt=0, le=MAX_SECONDS, description="wait for one lock on a table")
    lock_retry_timeout: float = Field(default=60, ge=0, le=MAX_SECONDS, description="all attempts at one revision")
    migration_lock_timeout: float = Field(default=60, ge=0, le=MAX_SECONDS, description="wait for another migration")


def load_migration_options(
    lock_timeout: float | None = None, lock_patience: float | None = None, migrator_patience: float | None = None
) -> MigrationOptions:
    """Return the options that are given, and for the others what the environment says.

    Raises:
        SettingsError: a value is not a number of seconds.
    """
    given = {"lock_timeout": lock_timeout, "lock_patience": lock_patience, "migrator_patience": migrator_patience}
    try:
        return MigrationOptions(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(describe_validation_error(error, prefix="SYNTEGRA_")) from None
    except (OSError, UnicodeError) as error:
        raise SettingsError(describe_dotenv_error(error)) from None
