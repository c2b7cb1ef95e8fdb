"""What redis-py's asyncio client does against nearside, with its defaults.

Called as check_asyncio.py SOCKET; see .ci/clients for what it prints and waits
for.
"""

import asyncio
import json
import os
import sys

import redis
import redis.asyncio

SOCKET = sys.argv[1]
RUN = os.urandom(6).hex()  # keys of this run alone
database = {}


async def load_product(product_id):
    return database[product_id]


async def save_product(product_id, product):
    database[product_id] = product


# begin cache-aside
r = redis.asyncio.Redis(unix_socket_path=SOCKET)


async def read_product(product_id):
    cached = await r.get(f"product:{product_id}")
    if cached is not None:
        return json.loads(cached)
    product = await load_product(product_id)  # from the database
    await r.set(f"product:{product_id}", json.dumps(product), ex=300)
    return product


async def write_product(product_id, product):
    await save_product(product_id, product)  # commit first,
    await r.delete(f"product:{product_id}")  # then drop it in every pod
# end cache-aside


async def check_commands():
    a, b = f"{RUN}:a", f"{RUN}:b"
    assert await r.ping()
    assert await r.get(a) is None
    assert await r.set(a, "1")
    assert await r.get(a) == b"1"
    assert await r.set(b, "2", ex=100)
    assert 90 < await r.ttl(b) <= 100
    assert await r.mget(a, b, f"{RUN}:none") == [b"1", b"2", None]
    assert await r.exists(a, b, f"{RUN}:none") == 2
    assert await r.delete(a) == 1
    assert await r.get(a) is None


async def check_pipeline(transaction):
    keys = [f"{RUN}:p{transaction}{i}" for i in range(100)]
    pipe = r.pipeline(transaction=transaction)
    for i, key in enumerate(keys):
        pipe.set(key, i)
    assert await pipe.execute() == [True] * 100
    for key in keys:
        pipe.get(key)
    assert await pipe.execute() == [b"%d" % i for i in range(100)]


async def check_many_at_once():
    async def one(i):
        await r.set(f"{RUN}:m{i}", i)
        return await r.get(f"{RUN}:m{i}")

    assert await asyncio.gather(*map(one, range(20))) == [b"%d" % i for i in range(20)]


async def check_large_value():
    value = os.urandom(1 << 20)
    assert await r.set(f"{RUN}:large", value)
    assert await r.get(f"{RUN}:large") == value


async def check_unknown_command():
    client = redis.asyncio.Redis(unix_socket_path=SOCKET, single_connection_client=True)
    before = await client.client_id()
    try:
        await client.execute_command("NOSUCH", "x")
        raise AssertionError("an unknown command was answered")
    except redis.ResponseError as e:
        assert "unknown command" in str(e), e
    assert await client.client_id() == before, "the connection ended"
    await client.aclose()


async def check_cache_aside():
    await save_product(RUN, {"price": 10})
    assert await read_product(RUN) == {"price": 10}
    assert await r.exists(f"product:{RUN}") == 1
    await write_product(RUN, {"price": 20})
    assert await read_product(RUN) == {"price": 20}


async def check_reconnect():
    print("restart", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    async with asyncio.timeout(10):
        while True:
            try:
                await r.ping()
                break
            except redis.ConnectionError:
                pass
    assert await r.set(f"{RUN}:after", "3")
    assert await r.get(f"{RUN}:after") == b"3"


async def main():
    print("version", redis.__version__)
    await check_commands()
    await check_pipeline(transaction=True)  # redis-py's default
    await check_pipeline(transaction=False)
    await check_many_at_once()
    await check_large_value()
    await check_unknown_command()
    await check_cache_aside()
    await check_reconnect()
    await r.aclose()


asyncio.run(main())
