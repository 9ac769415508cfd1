from sqlalchemy import event

from regraft.database import close_database, open_database


def test_a_connection_that_a_thread_still_uses_is_closed_when_it_is_given_back(database: str) -> None:
    """Otherwise it stays open until it is garbage, of which psycopg warns."""
    engine = open_database(database)
    closed: list[object] = []
    event.listen(engine, "close", lambda driver, _record: closed.append(driver))
    in_use = engine.connect()
    driver = in_use.connection.dbapi_connection

    close_database(engine)
    assert driver not in closed
    in_use.close()

    assert driver in closed
