// What node-redis does against nearside, with its defaults. Called as
// node-redis.mjs SOCKET.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createClient, RESP_TYPES } from 'redis'
import { RUN, SOCKET, restarted, sayVersion } from './protocol.mjs'

const database = new Map()
const loadProduct = async (id) => database.get(id)
const saveProduct = async (id, product) => database.set(id, product)

// begin cache-aside
const client = createClient({ socket: { path: SOCKET } })
client.on('error', (err) => console.error('nearside:', err.message))
await client.connect()

async function readProduct(id) {
  const cached = await client.get(`product:${id}`)
  if (cached !== null) return JSON.parse(cached)
  const product = await loadProduct(id) // from the database
  await client.set(`product:${id}`, JSON.stringify(product), { EX: 300 })
  return product
}

async function writeProduct(id, product) {
  await saveProduct(id, product) // commit first,
  await client.del(`product:${id}`) // then drop it in every pod
}
// end cache-aside

async function checkCommands() {
  const [a, b, none] = [`${RUN}:a`, `${RUN}:b`, `${RUN}:none`]
  assert.equal(await client.ping(), 'PONG')
  assert.equal(await client.get(a), null)
  assert.equal(await client.set(a, '1'), 'OK')
  assert.equal(await client.get(a), '1')
  assert.equal(await client.set(b, '2', { EX: 100 }), 'OK')
  const ttl = await client.ttl(b)
  assert(ttl > 90 && ttl <= 100, `TTL ${ttl}`)
  assert.deepEqual(await client.mGet([a, b, none]), ['1', '2', null])
  assert.equal(await client.exists([a, b, none]), 2)
  assert.equal(await client.del(a), 1)
  assert.equal(await client.get(a), null)
  assert((await client.command()).some(({ name }) => name === 'get'))
}

// Commands of one tick go out as one pipeline.
async function checkPipeline() {
  const numbers = Array.from({ length: 100 }, (_, i) => String(i))
  const sets = await Promise.all(numbers.map((i) => client.set(`${RUN}:p${i}`, i)))
  assert(sets.every((answer) => answer === 'OK'))
  assert.deepEqual(await Promise.all(numbers.map((i) => client.get(`${RUN}:p${i}`))), numbers)
}

async function checkMulti() {
  const key = `${RUN}:multi`
  assert.deepEqual(await client.multi().set(key, '1').get(key).del(key).exec(), ['OK', '1', 1])
}

async function checkLargeValue() {
  const value = randomBytes(1 << 20)
  await client.set(`${RUN}:large`, value)
  const bytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer })
  assert(value.equals(await bytes.get(`${RUN}:large`)), '1 MiB came back changed')
}

async function checkUnknownCommand() {
  const before = await client.clientId()
  await assert.rejects(client.sendCommand(['NOSUCH', 'x']), /unknown command/)
  assert.equal(await client.clientId(), before, 'the connection ended')
}

async function checkCacheAside() {
  await saveProduct(RUN, { price: 10 })
  assert.deepEqual(await readProduct(RUN), { price: 10 })
  assert.equal(await client.exists(`product:${RUN}`), 1)
  await writeProduct(RUN, { price: 20 })
  assert.deepEqual(await readProduct(RUN), { price: 20 })
}

// The client connects again by itself and keeps commands until then.
async function checkReconnect() {
  await restarted()
  assert.equal(await client.ping(), 'PONG')
  assert.equal(await client.set(`${RUN}:after`, '3'), 'OK')
  assert.equal(await client.get(`${RUN}:after`), '3')
}

sayVersion('redis')
await checkCommands()
await checkPipeline()
await checkMulti()
await checkLargeValue()
await checkUnknownCommand()
await checkCacheAside()
await checkReconnect()
await client.close()
