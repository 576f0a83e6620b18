"""Celery tasks with a client: a worker's thread keeps neither the client nor the session of the last task."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, Task
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Retry
from sqlalchemy import select, text

from support.clients import CLIENTS, SERVICE
from syntegra_db.database import create_engine
from syntegra_db.errors import InvalidClient
from syntegra_db.models import Cluster, KpiSummary
from syntegra_db.tenancy import ClientSession, client, require_policies, session_factory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine
    from sqlalchemy.orm import sessionmaker

    from support.servers import Database

TASKS = 40
TIMEOUT_SECONDS = 60
VISIBLE = text("SELECT client_id FROM kpi_summary")


class ClientTask(Task):  # type: ignore[misc]  # Celery has no types
    """A task whose first argument is a client; its function gets a session of this client instead.

    The session belongs to one call, so that the worker's next task cannot have it. The transaction is committed if the
    function returns.
    """

    abstract = True
    sessions: sessionmaker[ClientSession]

    def __call__(self, client_id: int, *arguments: Any, **named: Any) -> Any:
        """Run the task in a transaction of the client."""
        with self.sessions() as session, client(session, client_id):
            # Not `super().__call__`, which would put the session into the arguments of a retry.
            result = self.run(session, *arguments, **named)
            session.commit()
            return result


def add_cluster(session: ClientSession, number: int) -> None:
    assert session.client_id is not None
    session.add(Cluster(client_id=session.client_id, cluster_id=number, features_json={}))
    session.flush()


def create_worker(engine: Engine) -> Celery:
    """Return an application with tasks that end in each way."""
    app = Celery("worker", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=False, worker_hijack_root_logger=False)

    class EngineTask(ClientTask):
        abstract = True
        sessions = session_factory(engine)

    @app.task(shared=False, base=EngineTask, name="read")  # type: ignore[untyped-decorator]
    def read(session: ClientSession) -> list[int]:
        return [*session.scalars(select(KpiSummary.client_id)), *session.scalars(VISIBLE)]

    @app.task(shared=False, base=EngineTask, name="fail")  # type: ignore[untyped-decorator]
    def fail(session: ClientSession, *, in_database: bool) -> None:
        add_cluster(session, 99)
        if in_database:
            session.execute(text("SELECT 1 / 0"))
        raise LookupError

    @app.task(shared=False, base=EngineTask, name="retry", bind=True, max_retries=2)  # type: ignore[untyped-decorator]
    def retry(self: Task, session: ClientSession) -> list[int]:
        clients = [*session.scalars(VISIBLE)]
        add_cluster(session, 98)
        if self.request.retries < 1:
            raise self.retry(countdown=0)
        return clients

    return app


@pytest.fixture
def engine_of_worker(protected: Database) -> Iterator[Engine]:
    engine = create_engine(protected.url_as(SERVICE), pool_size=2, max_overflow=0)
    require_policies(engine)
    yield engine
    engine.dispose()


def test_tasks_of_worker_threads_each_see_their_client(engine_of_worker: Engine, protected: Database) -> None:
    app = create_worker(engine_of_worker)
    choice = random.Random(7)
    with start_worker(app, pool="threads", concurrency=4, perform_ping_check=False, shutdown_timeout=TIMEOUT_SECONDS):
        calls = []
        for _ in range(TASKS):
            client_id, name = choice.choice(CLIENTS), choice.choice(["read", "read", "fail", "retry"])
            options = {"in_database": choice.random() < 0.5} if name == "fail" else {}
            calls.append((client_id, name, app.tasks[name].apply_async([client_id], options)))
        for client_id, name, result in calls:
            if name == "fail":
                with pytest.raises(Exception, match=r"division by zero|^$"):
                    result.get(timeout=TIMEOUT_SECONDS)
            else:
                assert set(result.get(timeout=TIMEOUT_SECONDS)) == {client_id}
    retries = sum(name == "retry" for _, name, _ in calls)
    assert protected.query("SELECT cluster_id, count(*) FROM clusters WHERE cluster_id > 90 GROUP BY 1") == [
        (98, retries)
    ]


def test_client_of_task_is_required(engine_of_worker: Engine) -> None:
    app = create_worker(engine_of_worker)
    with pytest.raises(InvalidClient):
        app.tasks["read"].apply(["7"], throw=True)
    with pytest.raises(Retry):
        app.tasks["retry"](7)
    with session_factory(engine_of_worker)() as session:
        assert session.scalars(VISIBLE).all() == []
