// What both programs share: see .ci/clients for what they print and wait for.
import { once } from 'node:events'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'

export const SOCKET = process.argv[2]

// Keys of this run alone begin with RUN.
export const RUN = randomBytes(6).toString('hex')

export function sayVersion(pkg) {
  const manifest = readFileSync(new URL(`node_modules/${pkg}/package.json`, import.meta.url))
  console.log(`version ${JSON.parse(manifest).version}`)
}

// restarted returns when the server is back.
export async function restarted() {
  console.log('restart')
  await once(process.stdin, 'data')
  process.stdin.destroy()
}
