"""What redis-py does against nearside, with its defaults.

Called as check_sync.py SOCKET; see .ci/clients for what it prints and waits for.
"""

import json
import os
import sys
import time

import redis

SOCKET = sys.argv[1]
RUN = os.urandom(6).hex()  # keys of this run alone
database = {}


def load_product(product_id):
    return database[product_id]


def save_product(product_id, product):
    database[product_id] = product


# begin cache-aside
r = redis.Redis(unix_socket_path=SOCKET)


def read_product(product_id):
    cached = r.get(f"product:{product_id}")
    if cached is not None:
        return json.loads(cached)
    product = load_product(product_id)  # from the database
    r.set(f"product:{product_id}", json.dumps(product), ex=300)
    return product


def write_product(product_id, product):
    save_product(product_id, product)  # commit first,
    r.delete(f"product:{product_id}")  # then drop it in every pod
# end cache-aside


def check_commands():
    a, b = f"{RUN}:a", f"{RUN}:b"
    assert r.ping()
    assert r.get(a) is None
    assert r.set(a, "1")
    assert r.get(a) == b"1"
    assert r.set(b, "2", ex=100)
    assert 90 < r.ttl(b) <= 100
    assert r.mget(a, b, f"{RUN}:none") == [b"1", b"2", None]
    assert r.exists(a, b, f"{RUN}:none") == 2
    assert r.delete(a) == 1
    assert r.get(a) is None


def check_pipeline(transaction):
    keys = [f"{RUN}:p{transaction}{i}" for i in range(100)]
    pipe = r.pipeline(transaction=transaction)
    for i, key in enumerate(keys):
        pipe.set(key, i)
    assert pipe.execute() == [True] * 100
    for key in keys:
        pipe.get(key)
    assert pipe.execute() == [b"%d" % i for i in range(100)]


def check_introspection():
    """What tools and frameworks on top of the client ask for."""
    assert "get" in r.command()
    assert r.info("server")["redis_mode"] == "standalone"
    assert r.client_info()["lib-name"] == "redis-py"
    assert r.config_get("maxmemory*")
    assert f"{RUN}:b".encode() in set(r.scan_iter(f"{RUN}:*"))


def check_large_value():
    value = os.urandom(1 << 20)
    assert r.set(f"{RUN}:large", value)
    assert r.get(f"{RUN}:large") == value


def check_unknown_command():
    client = redis.Redis(unix_socket_path=SOCKET, single_connection_client=True)
    before = client.client_id()
    try:
        client.execute_command("NOSUCH", "x")
        raise AssertionError("an unknown command was answered")
    except redis.ResponseError as e:
        assert "unknown command" in str(e), e
    assert client.client_id() == before, "the connection ended"
    client.close()


def check_cache_aside():
    save_product(RUN, {"price": 10})
    assert read_product(RUN) == {"price": 10}
    assert r.exists(f"product:{RUN}") == 1
    write_product(RUN, {"price": 20})
    assert read_product(RUN) == {"price": 20}


def check_reconnect():
    print("restart", flush=True)
    sys.stdin.readline()
    deadline = time.monotonic() + 10
    while True:
        try:
            r.ping()
            break
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
    assert r.set(f"{RUN}:after", "3")
    assert r.get(f"{RUN}:after") == b"3"


print("version", redis.__version__)
check_commands()
check_pipeline(transaction=True)  # redis-py's default
check_pipeline(transaction=False)
check_introspection()
check_large_value()
check_unknown_command()
check_cache_aside()
check_reconnect()
