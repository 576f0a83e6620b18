"""The web service. It starts only if the database is at the revision that its version of syntegra_db needs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from application.models import Client
from syntegra_db.database import async_session_factory, create_async_engine
from syntegra_db.migrations import async_require_head
from syntegra_db.models import Cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class NewClient(BaseModel):
    """A client to create."""

    name: str


class ClusterOfClient(BaseModel):
    """A cluster, as the platform numbered it for the client."""

    cluster_id: int
    cluster_name: str | None = None


class ClientWithClusters(NewClient):
    """A client with its clusters."""

    id: int
    clusters: list[ClusterOfClient]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the pool, and end the start with `DatabaseBehind` or `DatabaseAhead` if the revision does not fit."""
    engine = create_async_engine(application_name="example application")
    try:
        await async_require_head(engine)
        app.state.sessions = async_session_factory(engine)
        yield
    finally:
        await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def session_of_request(request: Request) -> AsyncIterator[AsyncSession]:
    """Yield the session of a request; what was not committed is rolled back."""
    async with request.app.state.sessions() as session:
        yield session


DatabaseSession = Annotated[AsyncSession, Depends(session_of_request)]


@app.post("/clients", status_code=201)
async def create_client(new: NewClient, session: DatabaseSession) -> ClientWithClusters:
    """Create a client."""
    client = Client(name=new.name)
    session.add(client)
    await session.commit()
    return ClientWithClusters(id=client.id, name=client.name, clusters=[])


@app.post("/clients/{client_id}/clusters", status_code=201)
async def add_cluster(client_id: int, new: ClusterOfClient, session: DatabaseSession) -> ClusterOfClient:
    """Add a cluster to a client."""
    client = await find_client(session, client_id)
    client.clusters.append(Cluster(cluster_id=new.cluster_id, cluster_name=new.cluster_name, features_json={}))
    await session.commit()
    return new


@app.get("/clients/{client_id}")
async def read_client(client_id: int, session: DatabaseSession) -> ClientWithClusters:
    """Return a client with its clusters."""
    client = await find_client(session, client_id)
    clusters = [
        ClusterOfClient(cluster_id=cluster.cluster_id, cluster_name=cluster.cluster_name) for cluster in client.clusters
    ]
    return ClientWithClusters(id=client.id, name=client.name, clusters=clusters)


async def find_client(session: AsyncSession, client_id: int) -> Client:
    """Return a client with its clusters; 404 if it does not exist."""
    client = await session.get(Client, client_id, options=[selectinload(Client.clusters)])
    if client is None:
        raise HTTPException(404, f"Client {client_id} does not exist.")
    return client
