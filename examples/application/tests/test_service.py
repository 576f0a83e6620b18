"""The web service, with the application's table and those of syntegra_db."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from application.main import app
from application.models import Client
from syntegra_db.errors import DatabaseBehind
from syntegra_db.migrations import downgrade
from syntegra_db.models import Cluster
from syntegra_db.testing.factories import ClusterFactory

if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from sqlalchemy.orm import Session


def test_cluster_of_client_is_stored_with_its_id(web: TestClient, syntegra_session: Session) -> None:
    client = web.post("/clients", json={"name": "Taberna"}).json()
    created = web.post(f"/clients/{client['id']}/clusters", json={"cluster_id": 3, "cluster_name": "Weekend guests"})
    assert created.status_code == 201
    assert web.get(f"/clients/{client['id']}").json()["clusters"] == [
        {"cluster_id": 3, "cluster_name": "Weekend guests"}
    ]
    assert syntegra_session.scalars(select(Cluster.client_id)).all() == [client["id"]]


def test_relationship_loads_the_clusters_of_one_client(syntegra_session: Session) -> None:
    syntegra_session.add_all([Client(id=7, name="Taberna"), Client(id=8, name="Panadería")])
    syntegra_session.flush()
    syntegra_session.add_all([ClusterFactory.build(client_id=7), ClusterFactory.build(client_id=8)])
    syntegra_session.flush()
    client = syntegra_session.get_one(Client, 7)
    syntegra_session.refresh(client, ["clusters"])
    assert [cluster.client_id for cluster in client.clusters] == [7]


def test_row_of_unknown_client_is_rejected(syntegra_session: Session) -> None:
    syntegra_session.add(ClusterFactory.build(client_id=9))
    with pytest.raises(IntegrityError, match="fk_clusters_client"):
        syntegra_session.flush()


def test_missing_client_is_not_found(web: TestClient) -> None:
    assert web.get("/clients/9").status_code == 404


def test_service_does_not_start_before_the_migration(syntegra_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    downgrade("002", syntegra_url)
    monkeypatch.setenv("DATABASE_URL", syntegra_url.render_as_string(hide_password=False))
    with pytest.raises(DatabaseBehind, match="syntegra-db upgrade"), TestClient(app):
        pass
