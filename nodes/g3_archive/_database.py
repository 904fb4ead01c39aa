"""Where the index is: from one URL, from the four variables of existing sites, or a file in the state directory."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from sisockdaq.errors import ConfigurationError

__all__ = ["database_url"]

_DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mysql+pymysql", "mysql+pymysql": "mysql+pymysql", "sqlite": "sqlite"}

_CHARSET = {"charset": "utf8mb4"}


def database_url(
    database: str | None, host: str | None, user: str | None, password: str | None, name: str | None, default: Path
) -> URL:
    """Return the URL of the index.

    Parameters
    ----------
    database : str, optional
        A URL; `user` and `password` are added where it has none.
    host, user, password, name : str, optional
        What makes a URL of MariaDB where there is none; `host` may have a port.
    default : Path
        The SQLite file that is used where neither is given.

    Raises
    ------
    ConfigurationError
        The URL cannot be read, names another kind of database, or a part is missing.
    """
    if database is None and host is None:
        return URL.create("sqlite", database=str(default))
    if database is None:
        missing = [option for option, value in (("sql_user", user), ("sql_db", name)) if not value]
        if missing:
            raise ConfigurationError(
                f"sql_host is given, but not {' and '.join(missing)}", remedy="give all of them, or one database URL"
            )
        server, _, port = str(host).partition(":")
        if port and not port.isdigit():
            raise ConfigurationError(f"sql_host: {port!r} is not a port", remedy="write HOST or HOST:PORT")
        number = int(port) if port else None
        return URL.create("mysql+pymysql", user, password, server, number, name, query=_CHARSET)
    try:
        url = make_url(database)
    except ArgumentError:
        # Not what was given: it may hold a password.
        raise ConfigurationError(
            "database is not a URL", remedy="write mysql+pymysql://USER@HOST/DATABASE or sqlite:////PATH"
        ) from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise ConfigurationError(
            f"database: {url.drivername} is not known",
            remedy="MariaDB (mysql+pymysql://…) and SQLite (sqlite:///…) are",
        )
    url = url.set(drivername=driver)
    if driver == "sqlite":
        return url
    if not url.database:
        raise ConfigurationError(
            "database: the URL names no database", remedy="write mysql+pymysql://USER@HOST/DATABASE"
        )
    url = url.set(username=url.username or user, password=url.password or password)
    return url.update_query_dict({**_CHARSET, **url.query})
