"""Several requests to MLflow's SQLite in one transaction.

MLflow opens six sessions per run, each with three settings and a commit, which take more than half of the
time of writing a run. `one_transaction` lets the requests of a thread share a session (SQLAlchemy's recipe
"Joining a Session into an External Transaction"), so that all of them are written, or none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy.orm import Session

SETTINGS = ("foreign_keys = ON", "busy_timeout = 20000", "case_sensitive_like = true")
"""Settings of a connection to SQLite, as in `mlflow/store/db/utils.py`."""


def sqlite_store(client: MlflowClient) -> SqlAlchemyStore | None:
    """The store of `client`, if it is a local SQLite whose sessions can be shared; else None."""
    # MLflow has no public access to its store; if this private one fails, requests are not combined.
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    if isinstance(store, SqlAlchemyStore) and hasattr(store, "ManagedSessionMaker"):
        return store if store.engine.dialect.name == "sqlite" else None
    return None


class _Joined(threading.local):
    """The current transaction of a thread."""

    store: SqlAlchemyStore | None = None
    session: Session
    depth = 0


_joined = _Joined()
_installing = threading.Lock()


@contextmanager
def one_transaction(store: SqlAlchemyStore) -> Iterator[None]:
    """Commit everything that this thread writes to `store` when the block ends; nothing if the block raises.

    Other threads can write, but wait while this thread has uncommitted changes. Raises the errors of
    SQLAlchemy, and `MlflowException` for requests that MLflow rejects or rolls back.
    """
    _install(store)
    with store.engine.connect() as connection:
        for setting in SETTINGS:
            connection.exec_driver_sql(f"PRAGMA {setting}")
        connection.commit()
        with (
            connection.begin() as transaction,
            Session(connection, expire_on_commit=False, join_transaction_mode="rollback_only") as session,
        ):
            _joined.store, _joined.session, _joined.depth = store, session, 0
            try:
                yield
            finally:
                _joined.store = None
            session.commit()  # into the transaction
            if not transaction.is_active:
                raise MlflowException("a transaction of several runs was rolled back")


def _install(store: SqlAlchemyStore) -> None:
    """Make `store`, which all clients of this process share, use the transaction of a thread; done once."""
    with _installing:
        own = store.ManagedSessionMaker
        if getattr(own, "joins", False):
            return

        @contextmanager
        def managed(*given: Any, **named: Any) -> Iterator[Session]:
            with _part() if _joined.store is store else own(*given, **named) as session:
                yield session

        managed.joins = True  # type: ignore[attr-defined]
        store.ManagedSessionMaker = managed


@contextmanager
def _part() -> Iterator[Session]:
    """The session of this thread's transaction, for one request or a part of a request."""
    session = _joined.session
    _joined.depth += 1  # a request opens nested sessions
    try:
        yield session
        session.flush()
    finally:
        _joined.depth -= 1
    if not _joined.depth:
        session.expunge_all()  # the next request reads from the database
