"""The condition on `client_id` that ORM statements get: with it, the server checks the policy once and not per row."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, bindparam
from sqlalchemy.orm import LoaderCriteriaOption
from sqlalchemy.orm.interfaces import CriteriaOption

from syntegra_db import models
from syntegra_db.client_setting import CLIENT_COLUMN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import BindParameter, ColumnElement
    from sqlalchemy.orm import ORMExecuteState

# Statements of the caller can have a parameter `client_id`.
PARAMETER = "syntegra_client_id"


@cache
def client_models() -> tuple[type[Any], ...]:
    """Return the models of the package whose rows belong to a client."""
    classes = (getattr(models, name) for name in models.__all__)
    return tuple(
        model
        for model in classes
        if isinstance(model, type) and CLIENT_COLUMN in getattr(getattr(model, "__table__", None), "columns", ())
    )


@cache
def client_tables() -> frozenset[str]:
    """Return the names of the tables of these models."""
    return frozenset(model.__table__.name for model in client_models())


class _ModelCriteria(LoaderCriteriaOption):
    """The criteria of one model with a parameter that several models share.

    SQLAlchemy's own takes a function instead, and remembers the parameter of its first call.
    """

    def __init__(self, model: type[Any], parameter: BindParameter[int]) -> None:
        super().__init__(model, getattr(model, CLIENT_COLUMN) == parameter, include_aliases=True)
        self._parameter = parameter

    def _resolve_where_criteria(self, ext_info: Any) -> ColumnElement[bool]:
        """Return the condition for the model, or for an alias of it."""
        condition = getattr(ext_info.entity, CLIENT_COLUMN) == self._parameter
        return LoaderCriteriaOption(ext_info.entity, condition)._resolve_where_criteria(ext_info)  # noqa: SLF001


class ClientCriteria(CriteriaOption):
    """The criteria of all these models as one option with one parameter.

    SQLAlchemy visits each option to find a statement in its cache: six options take half the time of a small SELECT.
    It has no public hook for that.
    """

    # A row loaded later through a relationship gets the client of that time.
    propagate_to_loaders = False

    def __init__(self, client_id: int) -> None:
        self._parameter: BindParameter[int] = bindparam(PARAMETER, client_id, BigInteger)
        self._options = [_ModelCriteria(model, self._parameter) for model in client_models()]

    def process_compile_state(self, compile_state: Any) -> None:
        """Add the criteria to a SELECT that is compiled."""
        self.get_global_criteria(compile_state.global_attributes)

    def process_compile_state_replaced_entities(self, compile_state: Any, mapper_entities: Iterable[Any]) -> None:
        """Add the criteria to a SELECT with other columns than the caller's."""
        del mapper_entities
        self.process_compile_state(compile_state)

    def get_global_criteria(self, attributes: dict[Any, Any]) -> None:
        """Add the criteria to those of an UPDATE or DELETE."""
        for option in self._options:
            option.get_global_criteria(attributes)

    def _gen_cache_key(self, anon_map: Any, bindparams: list[BindParameter[Any]]) -> tuple[Any, ...]:
        parameter: Any = self._parameter
        return (type(self), parameter._gen_cache_key(anon_map, bindparams))  # noqa: SLF001  the same protocol


@lru_cache(maxsize=1024)
def client_criteria(client_id: int) -> ClientCriteria:
    """Return the option that restricts these models to the rows of one client."""
    return ClientCriteria(client_id)


def add_criteria(state: ORMExecuteState, client_id: int) -> None:
    """Add the condition to an ORM SELECT, UPDATE or DELETE."""
    if state.is_orm_statement and (state.is_select or state.is_update or state.is_delete):
        state.statement = state.statement.options(client_criteria(client_id))
