// js-libp2p's Kademlia and ours: `node kad.mjs KAD_PEER`, where KAD_PEER is the program of
// chiral-dht/examples/kad_peer.rs. Ends with 0 if records and providers pass both ways.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import * as digest from 'multiformats/hashes/digest'

const STEP_TIMEOUT = 40_000
const SHA_256 = 0x12
const [program] = process.argv.slice(2)
const children = []

// Repeats until the answer is true: what was put may take a moment to be seen.
async function until (what, ask) {
  const end = Date.now() + STEP_TIMEOUT
  let last
  while (Date.now() < end) {
    try {
      last = await ask()
      if (last) {
        console.log(`ok ${what}`)
        return last
      }
    } catch (error) {
      last = error
    }
    await sleep(200)
  }
  throw new Error(`not seen: ${what}: ${last}`)
}

// One of our nodes, driven by lines.
class Ours {
  constructor (bootstrap) {
    this.process = spawn(program, bootstrap, { stdio: ['pipe', 'pipe', 'inherit'] })
    children.push(this.process)
    this.lines = createInterface({ input: this.process.stdout })[Symbol.asyncIterator]()
  }

  async line () {
    const { value, done } = await this.lines.next()
    if (done) throw new Error('our node ended')
    return value
  }

  async ask (line) {
    this.process.stdin.write(`${line}\n`)
    return (await this.line()).split(' ')
  }

  async start () {
    const [word, address] = (await this.line()).split(' ')
    if (word !== 'listening') throw new Error(`not listening: ${word}`)
    this.address = address
    this.peer = address.split('/').at(-1)
    return this
  }

  async end () {
    const ended = new Promise(resolve => this.process.once('exit', resolve))
    this.process.kill('SIGKILL')
    await ended
  }
}

const sha256 = text => createHash('sha256').update(text).digest()
const recordKey = hex => new TextEncoder().encode(`/chiral/${hex}`)
const rawCid = hash => CID.createV1(raw.code, digest.create(SHA_256, hash))

async function get (dht, key) {
  for await (const event of dht.get(key)) {
    if (event.name === 'VALUE') return event.value
  }
}

async function put (dht, key, value) {
  let answers = 0
  for await (const event of dht.put(key, value)) {
    if (event.name === 'PEER_RESPONSE' && event.messageName === 'PUT_VALUE') answers += 1
  }
  return answers
}

async function finds (dht, cid, peer) {
  for await (const event of dht.findProviders(cid)) {
    if (event.name === 'PROVIDER' && event.providers.some(p => p.id.toString() === peer)) return true
  }
  return false
}

async function main () {
  const node = await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: {
      identify: identify(),
      ping: ping(),
      dht: kadDHT({
        protocol: '/chiral/kad/1.0.0',
        clientMode: false,
        peerInfoMapper: passthroughMapper,
        allowQueryWithZeroPeers: true,
        validators: {
          chiral: async (key, value) => {
            if (value.length === 0) throw new Error('an empty record')
          }
        },
        selectors: { chiral: () => 0 }
      })
    }
  })
  const { dht } = node.services
  const self = node.peerId.toString()

  // Ours first: js dials, gets our record, finds our provider record.
  const a = await new Ours([]).start()
  await node.dial(multiaddr(a.address))
  await until('our node admits the js node', async () => (await a.ask('known'))[1] === '1')
  const [word, hex] = await a.ask('announce our file')
  if (word !== 'announced') throw new Error(`${word} ${hex}`)
  if (hex !== sha256('our file').toString('hex')) throw new Error(`another cid: ${hex}`)
  const key = recordKey(hex)
  const value = await until('js gets a record that we put', async () => await get(dht, key))
  const cid = rawCid(Buffer.from(hex, 'hex'))
  await until('js finds us as a provider', async () => await finds(dht, cid, a.peer))

  // A node that has never met the first one asks js, which keeps what we put there.
  await a.end()
  const b = await new Ours(node.getMultiaddrs().map(String)).start()
  await until('we dial the js node', async () => (await b.ask('known'))[1] !== '0')
  await until('we get a record from js', async () => (await b.ask(`offers ${hex}`)).includes(a.peer))

  // What js puts we check and keep; what is invalid we refuse.
  const c = await new Ours(node.getMultiaddrs().map(String)).start()
  await until('a third node is known', async () => (await c.ask('known'))[1] !== '0')
  await until('js puts a record with us', async () => await put(dht, key, value) > 0)
  const bad = recordKey(sha256('bad').toString('hex'))
  if (await put(dht, bad, new Uint8Array([1, 2, 3])) > 0) throw new Error('an invalid record was taken')
  console.log('ok an invalid record of js is refused')

  // Providers, from js to ours and back.
  const theirs = sha256('their file')
  for await (const _ of dht.provide(rawCid(theirs))) { /* to the end */ }
  await until('we find js as a provider', async () =>
    (await b.ask(`providers ${theirs.toString('hex')}`)).includes(self))
  const [, second] = await b.ask('announce our second file')
  await until('js finds the provider record that we sent', async () =>
    await finds(dht, rawCid(Buffer.from(second, 'hex')), b.peer))

  // Without js, ours still have what js put with them.
  await node.stop()
  await until('we keep what js put', async () => (await c.ask(`offers ${hex}`)).includes(a.peer))
}

try {
  await main()
  process.exitCode = 0
} catch (error) {
  console.error(error)
  process.exitCode = 1
} finally {
  for (const child of children) child.kill('SIGKILL')
}
process.exit()
