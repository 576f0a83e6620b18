"""The enums compare in the order of their PostgreSQL types."""

from __future__ import annotations

import json
import operator
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import cast, select

from syntegra_db.models import (
    AnomalyLog,
    AnomalySeverity,
    InvalidValue,
    TrendSignal,
    TrendStatus,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@pytest.mark.parametrize("enum", [AnomalySeverity, TrendStatus])
def test_enum_members_compare_in_the_order_of_the_type(enum: type[AnomalySeverity | TrendStatus]) -> None:
    members = list(enum)
    for left, right in product(members, members):
        positions = members.index(left), members.index(right)
        assert (left < right, left <= right) == (positions[0] < positions[1], positions[0] <= positions[1])
        assert (left > right, left >= right) == (positions[0] > positions[1], positions[0] >= positions[1])
    assert sorted([members[-1], *members[:-1]]) == members
    assert (min(members), max(members)) == (members[0], members[-1])
    assert [pickle.loads(pickle.dumps(member)) for member in members] == members  # noqa: S301  pickled here


def test_enum_order_is_the_order_in_sql(session: Session) -> None:
    for enum, column in ((AnomalySeverity, AnomalyLog.severity), (TrendStatus, TrendSignal.status)):
        for left, right in product(enum, enum):
            expression = cast(left, column.type) >= cast(right, column.type)
            assert session.scalar(select(expression)) is (left >= right)


@pytest.mark.parametrize("other", ["critical", "HIGH", "", TrendStatus.STABLE, 1, None])
@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
def test_enum_compared_with_another_type_raises(compare: Any, other: Any) -> None:
    with pytest.raises(TypeError):
        compare(AnomalySeverity.HIGH, other)
    with pytest.raises(TypeError):
        compare(other, AnomalySeverity.HIGH)
    with pytest.raises(TypeError):
        sorted([AnomalySeverity.HIGH, other, AnomalySeverity.LOW])
    if isinstance(other, str):
        with pytest.raises(TypeError, match="compare it with a member of"):
            compare(other, AnomalySeverity.HIGH)


def test_enum_members_are_still_their_labels() -> None:
    high: str = AnomalySeverity.HIGH
    labels: dict[str, int] = {"high": 1}
    assert high == "high"
    assert operator.eq("high", high)
    assert high != "low"
    assert labels[high] == {high: 1}["high"] == 1
    assert f"{high}" == json.loads(json.dumps(high)) == "high"
    assert AnomalySeverity("high") is high


def test_enum_compared_with_a_column_is_an_expression(session: Session) -> None:
    session.add_all(
        [AnomalyLog(client_id=1, kpi_name="k", value=Decimal(1), severity=label) for label in AnomalySeverity]
    )
    session.flush()
    reflected = operator.le(AnomalySeverity.HIGH, AnomalyLog.severity)
    for condition in (AnomalyLog.severity >= AnomalySeverity.HIGH, reflected):
        found = session.scalars(select(AnomalyLog.severity).where(condition)).all()
        assert sorted(found) == [AnomalySeverity.HIGH, AnomalySeverity.CRITICAL]


@pytest.mark.parametrize("label", ["low", "critical", AnomalySeverity.HIGH])
def test_label_assigned_to_a_row_becomes_a_member(label: Any) -> None:
    anomaly = AnomalyLog(severity=label)
    assert anomaly.severity is AnomalySeverity(label)
    anomaly.severity = AnomalySeverity.from_label("medium")
    assert anomaly.severity < AnomalySeverity.HIGH


def test_label_of_a_trend_becomes_a_member_and_an_unknown_one_is_rejected(session: Session) -> None:
    status: Any = "declining"
    assert TrendSignal(status=status).status is TrendStatus.DECLINING
    unknown: Any = "Declining"
    now = datetime.now(UTC)
    session.add(TrendSignal(sector="s", term="t", period_start=now, period_end=now, status=unknown))
    with pytest.raises(InvalidValue, match=r"trend_signals\.status takes one of emergent, stable, declining, not this"):
        session.flush()
