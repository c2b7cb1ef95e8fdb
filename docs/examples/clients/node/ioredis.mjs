// What ioredis does against nearside, with its defaults. Called as ioredis.mjs
// SOCKET.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Redis } from 'ioredis'
import { RUN, SOCKET, restarted, sayVersion } from './protocol.mjs'

const database = new Map()
const loadProduct = async (id) => database.get(id)
const saveProduct = async (id, product) => database.set(id, product)

// begin cache-aside
const redis = new Redis(SOCKET)
redis.on('error', (err) => console.error('nearside:', err.message))

async function readProduct(id) {
  const cached = await redis.get(`product:${id}`)
  if (cached !== null) return JSON.parse(cached)
  const product = await loadProduct(id) // from the database
  await redis.set(`product:${id}`, JSON.stringify(product), 'EX', 300)
  return product
}

async function writeProduct(id, product) {
  await saveProduct(id, product) // commit first,
  await redis.del(`product:${id}`) // then drop it in every pod
}
// end cache-aside

async function checkCommands() {
  const [a, b, none] = [`${RUN}:a`, `${RUN}:b`, `${RUN}:none`]
  assert.equal(await redis.ping(), 'PONG')
  assert.equal(await redis.get(a), null)
  assert.equal(await redis.set(a, '1'), 'OK')
  assert.equal(await redis.get(a), '1')
  assert.equal(await redis.set(b, '2', 'EX', 100), 'OK')
  const ttl = await redis.ttl(b)
  assert(ttl > 90 && ttl <= 100, `TTL ${ttl}`)
  assert.deepEqual(await redis.mget(a, b, none), ['1', '2', null])
  assert.equal(await redis.exists(a, b, none), 2)
  assert.equal(await redis.del(a), 1)
  assert.equal(await redis.get(a), null)
  assert((await redis.command()).some(([name]) => name === 'get'))
}

async function checkPipeline() {
  const numbers = Array.from({ length: 100 }, (_, i) => String(i))
  const sets = redis.pipeline()
  for (const i of numbers) sets.set(`${RUN}:p${i}`, i)
  assert.deepEqual(await sets.exec(), numbers.map(() => [null, 'OK']))
  const gets = redis.pipeline()
  for (const i of numbers) gets.get(`${RUN}:p${i}`)
  assert.deepEqual(await gets.exec(), numbers.map((i) => [null, i]))
}

async function checkMulti() {
  const key = `${RUN}:multi`
  assert.deepEqual(await redis.multi().set(key, '1').get(key).del(key).exec(), [[null, 'OK'], [null, '1'], [null, 1]])
}

async function checkLargeValue() {
  const value = randomBytes(1 << 20)
  await redis.set(`${RUN}:large`, value)
  assert(value.equals(await redis.getBuffer(`${RUN}:large`)), '1 MiB came back changed')
}

async function checkUnknownCommand() {
  const before = await redis.client('ID')
  await assert.rejects(redis.call('NOSUCH', 'x'), /unknown command/)
  assert.equal(await redis.client('ID'), before, 'the connection ended')
}

async function checkCacheAside() {
  await saveProduct(RUN, { price: 10 })
  assert.deepEqual(await readProduct(RUN), { price: 10 })
  assert.equal(await redis.exists(`product:${RUN}`), 1)
  await writeProduct(RUN, { price: 20 })
  assert.deepEqual(await readProduct(RUN), { price: 20 })
}

// The client connects again by itself and keeps commands until then.
async function checkReconnect() {
  await restarted()
  assert.equal(await redis.ping(), 'PONG')
  assert.equal(await redis.set(`${RUN}:after`, '3'), 'OK')
  assert.equal(await redis.get(`${RUN}:after`), '3')
}

sayVersion('ioredis')
await checkCommands()
await checkPipeline()
await checkMulti()
await checkLargeValue()
await checkUnknownCommand()
await checkCacheAside()
await checkReconnect()
redis.disconnect()
