// Chromium, driven over its debugging pipe: what a browser makes of a seeder's page and files.
//
//     node browser.mjs <chromium> <profile directory> <base url> <file facts as JSON>
//
// The facts: { film, notes, drawing, hostile }, each { cid, size } and, of the last, name.
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { once } from "node:events";
import assert from "node:assert/strict";

const [program, profile, base, facts] = process.argv.slice(2);
const files = JSON.parse(facts);
const url = (file) => `${base}file/${file.cid}`;

// What Chromium does not answer in this time it never will.
const PATIENCE = 30_000;

const browser = spawn(
  program,
  [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    `--user-data-dir=${profile}`,
    "--remote-debugging-pipe",
    "about:blank",
  ],
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
);
const [, , , commands, replies] = browser.stdio;

let last = 0;
const waiting = new Map();
const listeners = new Set();
let rest = Buffer.alloc(0);
replies.on("data", (data) => {
  rest = Buffer.concat([rest, data]);
  for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0)) {
    const message = JSON.parse(rest.subarray(0, end).toString());
    rest = rest.subarray(end + 1);
    if (message.id) {
      const { resolve, reject } = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.error) reject(new Error(message.error.message));
      else resolve(message.result);
    } else {
      for (const listener of listeners) listener(message);
    }
  }
});

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} takes too long`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function send(method, params = {}, sessionId) {
  const id = ++last;
  const answer = new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
  commands.write(JSON.stringify({ id, method, params, sessionId }) + "\0");
  return within(answer, method);
}

// A tab: what it received is kept, so that nothing has to be waited for in the right order.
async function tab() {
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  const seen = [];
  listeners.add((message) => {
    if (message.sessionId === sessionId) seen.push(message);
  });
  const ask = (method, params) => send(method, params, sessionId);
  for (const domain of ["Page", "Network", "Runtime"]) await ask(`${domain}.enable`);
  return {
    seen,
    ask,
    // Opens a URL; answers the browser's complaint if it did not become a page.
    async open(where) {
      const before = seen.length;
      const { errorText } = await ask("Page.navigate", { url: where });
      if (errorText) return errorText;
      const loaded = async () => {
        while (!seen.slice(before).some((it) => it.method === "Page.loadEventFired")) {
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      };
      await within(loaded(), where);
      return null;
    },
    // Runs a function in the page; it may answer a promise.
    async run(work, ...args) {
      const list = args.map((arg) => JSON.stringify(arg)).join(",");
      const { result, exceptionDetails } = await ask("Runtime.evaluate", {
        expression: `(${work})(${list})`,
        awaitPromise: true,
        returnByValue: true,
      });
      if (exceptionDetails) {
        const { exception, text } = exceptionDetails;
        throw new Error(exception?.description ?? text);
      }
      return result.value;
    },
    responses(part) {
      const responses = seen.filter((it) => it.method === "Network.responseReceived");
      return responses.map((it) => it.params.response).filter((it) => it.url.includes(part));
    },
  };
}

// Seeks in the first player of the page until it plays from far behind what it had read.
async function play(element) {
  const player = document.querySelector(element);
  player.muted = true;
  const event = (name) =>
    new Promise((resolve, reject) => {
      player.addEventListener(name, resolve, { once: true });
      player.addEventListener("error", () => reject(new Error(player.error.message)));
    });
  const known = player.readyState > 0 ? null : event("loadedmetadata");
  player.preload = "auto";
  if (known) {
    player.load();
    await known;
  }
  const sought = event("seeked");
  player.currentTime = player.duration - 10;
  await sought;
  const going = event("timeupdate");
  await player.play();
  await going;
  return { duration: player.duration, at: player.currentTime };
}

async function page() {
  const it = await tab();
  assert.equal(await it.open(base), null);
  const found = await it.run(() => ({
    title: document.title,
    names: [...document.querySelectorAll("tbody td:first-child a")].map((a) => a.textContent),
    images: document.images.length,
    owned: window.owned,
    font: getComputedStyle(document.body).fontFamily,
    players: document.querySelectorAll("video").length,
  }));
  assert.equal(found.title, "Shared files");
  assert.equal(found.names.length, 4);
  assert.ok(found.names.includes(files.hostile.name), found.names);
  assert.deepEqual([found.images, found.owned ?? null, found.players], [0, null, 1]);
  assert.equal(found.font, "sans-serif", "the policy lets the page's own style through");

  const { duration, at } = await it.run(play, "video");
  assert.ok(duration > 100 && at > duration - 11, `${at} of ${duration}`);
  const parts = it.responses(files.film.cid);
  assert.ok(parts.some((part) => part.status === 206), "the film comes in ranges");
  const from = parts.map((part) => {
    // Names of headers are told in any case.
    const headers = new Headers(part.headers);
    return Number(/bytes (\d+)-/.exec(headers.get("content-range"))?.[1] ?? 0);
  });
  assert.ok(from.some((first) => first > files.film.size / 2), `it was sought: ${from}`);
  console.log(`   the page lists ${found.names.length} files; the film plays at ${at.toFixed(1)} s`);
}

async function elsewhere() {
  // A page of somebody else's, in whose name scripts ask.
  const server = createServer((_, answer) => {
    answer.setHeader("content-type", "text/html");
    answer.end("<!DOCTYPE html><title>elsewhere</title>");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const it = await tab();
  assert.equal(await it.open(`http://127.0.0.1:${server.address().port}/`), null);

  const inRanges = await it.run(
    async (where, size) => {
      const bytes = new Uint8Array(size);
      const step = 1 << 20;
      const seen = new Set();
      for (let first = 0; first < size; first += step) {
        const last = Math.min(first + step, size) - 1;
        const answer = await fetch(where, { headers: { range: `bytes=${first}-${last}` } });
        if (answer.status !== 206) throw new Error(`status ${answer.status}`);
        seen.add(answer.headers.get("etag")).add(answer.headers.get("repr-digest"));
        const range = answer.headers.get("content-range");
        if (range !== `bytes ${first}-${last}/${size}`) throw new Error(range);
        bytes.set(new Uint8Array(await answer.arrayBuffer()), first);
      }
      const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
      const hex = [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
      return { hex, seen: [...seen], base64: btoa(String.fromCharCode(...hash)) };
    },
    url(files.film),
    files.film.size,
  );
  assert.equal(inRanges.hex, files.film.cid);
  assert.deepEqual(inRanges.seen, [`"${files.film.cid}"`, `sha-256=:${inRanges.base64}:`]);

  const encoded = await it.run(async (where) => {
    const answer = await fetch(where);
    const bytes = await answer.arrayBuffer();
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return {
      hex: [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
      coding: answer.headers.get("content-encoding"),
      etag: answer.headers.get("etag"),
    };
  }, url(files.notes));
  assert.equal(encoded.hex, files.notes.cid);
  assert.ok(["zstd", "br"].includes(encoded.coding), encoded.coding);
  assert.equal(encoded.etag, `W/"${files.notes.cid}"`);

  // Questions that a browser asks leave for before it asks them.
  const asked = await it.run(
    async (where, cid) => {
      const headers = { "if-match": '"other"', "want-repr-digest": "sha-256=1" };
      const other = await fetch(where, { headers, cache: "no-store" });
      const headers2 = { "if-none-match": `"${cid}"` };
      const same = await fetch(where, { headers: headers2, cache: "no-store" });
      const none = await fetch(where.replace(cid, "0".repeat(64)), { headers });
      return [other.status, same.status, none.status];
    },
    url(files.film),
    files.film.cid,
  );
  assert.deepEqual(asked, [412, 304, 404]);

  // What is shared is not for every page to read.
  const list = await it.run((where) => fetch(where).then(() => "read", () => "refused"), base + "index.json");
  assert.equal(list, "refused");
  server.close();
  console.log(`   fetched in ranges and checked; as ${encoded.coding} and checked`);
}

async function files_by_themselves() {
  const it = await tab();
  assert.equal(await it.open(url(files.film)), null);
  // No listener runs there, as nothing may: the player is looked at from outside.
  const state = () =>
    it.run(() => {
      const { readyState, seeking, currentTime, duration } = document.querySelector("video");
      return { ready: readyState > 1 && !seeking, at: currentTime, duration };
    });
  const until = async (holds) => {
    for (;;) {
      const now = await state();
      if (holds(now)) return now;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const { duration } = await within(until((now) => now.ready), "the film by itself");
  await it.run((to) => void (document.querySelector("video").currentTime = to), duration - 10);
  await within(until((now) => now.ready && now.at >= duration - 10), "the search in it");
  await it.run(() => void document.querySelector("video").play());
  const { at } = await within(until((now) => now.at > duration - 10), "its going on");
  for (const file of [files.drawing, files.hostile]) {
    assert.equal(await it.open(url(file)), "net::ERR_ABORTED", "it is saved, not shown");
  }
  console.log(`   the film plays by itself at ${at.toFixed(1)} s; what could run does not`);
}

let failed = true;
try {
  await page();
  await elsewhere();
  await files_by_themselves();
  failed = false;
} finally {
  const ended = once(browser, "exit");
  await send("Browser.close").catch(() => browser.kill("SIGKILL"));
  await within(ended, "the end").catch(() => browser.kill("SIGKILL"));
  process.exitCode = failed ? 1 : 0;
}
