"""Many requests to MLflow's SQLite in one transaction.

MLflow opens six sessions for a run, each with three settings and a commit of its own, which is more than half
of what writing a run takes. `one_transaction` has the requests of a thread share a session (SQLAlchemy's own
recipe: "Joining a Session into an External Transaction"), so all of them are written, or none.
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
"""Of a connection to SQLite, as `mlflow/store/db/utils.py` sets them."""


def sqlite_store(client: MlflowClient) -> SqlAlchemyStore | None:
    """What `client` writes to, where that is a SQLite of this machine whose sessions can be shared."""
    # MLflow has no public way to its store: where this one ends, runs are written a request at a time.
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    if isinstance(store, SqlAlchemyStore) and hasattr(store, "ManagedSessionMaker"):
        return store if store.engine.dialect.name == "sqlite" else None
    return None


class _Joined(threading.local):
    """The transaction that a thread is in."""

    store: SqlAlchemyStore | None = None
    session: Session
    depth = 0


_joined = _Joined()
_installing = threading.Lock()


@contextmanager
def one_transaction(store: SqlAlchemyStore) -> Iterator[None]:
    """Commit what this thread writes to `store` when the block ends, and nothing of it if the block raises.

    Other threads write as ever, and wait while this one has written and not committed.
    Raises what SQLAlchemy raises, and `MlflowException` for what MLflow refuses or has taken back.
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
                raise MlflowException("a transaction of several runs was taken back")


def _install(store: SqlAlchemyStore) -> None:
    """Have `store`, which all clients of this process share, look for the transaction of a thread; once."""
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
    """The session of this thread's transaction, for one request or a part of it."""
    session = _joined.session
    _joined.depth += 1  # a request opens sessions within sessions
    try:
        yield session
        session.flush()
    finally:
        _joined.depth -= 1
    if not _joined.depth:
        session.expunge_all()  # the next request reads what is stored
