"""Timeouts of a migration, by argument or by environment variable."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from syntegra_db.errors import SettingsError
from syntegra_db.network import limit_session
from syntegra_db.settings import describe_dotenv_error, describe_validation_error

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Servers before 17 do not have this limit.
TRANSACTION_SECONDS = 60
# lock_timeout is a 32-bit number of milliseconds.
MAX_SECONDS = 2_147_483


class MigrationOptions(BaseSettings):
    """Times in seconds; each is read from `SYNTEGRA_…` in the environment or `.env` unless it is an argument.

    The default of `lock_timeout` is the longest time that a writer on a busy table queues behind a waiting migration,
    before the migration backs off and retries.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="SYNTEGRA_", env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    lock_timeout: float = Field(default=0.5, gt=0, le=MAX_SECONDS, description="wait for one lock on a table")
    lock_retry_timeout: float = Field(default=60, ge=0, le=MAX_SECONDS, description="all attempts at one revision")
    migration_lock_timeout: float = Field(default=60, ge=0, le=MAX_SECONDS, description="wait for another migration")

    @property
    def lock_timeout_milliseconds(self) -> int:
        """The value of PostgreSQL's setting `lock_timeout`, at least 1, because 0 means no limit."""
        return max(1, round(self.lock_timeout * 1000))


def load_migration_options(**seconds: float | None) -> MigrationOptions:
    """Return the options with `seconds` by name; those that are missing or None come from the environment.

    Raises:
        SettingsError: a value is not a number of seconds.
    """
    try:
        return MigrationOptions(**{name: value for name, value in seconds.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(describe_validation_error(error, prefix="SYNTEGRA_")) from None
    except (OSError, UnicodeError) as error:
        raise SettingsError(describe_dotenv_error(error)) from None


def limit_migration(connection: Connection, options: MigrationOptions) -> None:
    """Limit the waits for locks and the transactions of a session that migrates, and commit that."""
    limit_session(
        connection,
        lock_timeout=f"{options.lock_timeout_milliseconds}ms",
        transaction_timeout=f"{TRANSACTION_SECONDS}s",
    )
    connection.commit()
