// A bot on Microsoft's Graph client for JavaScript, as it would run against Graph.
//
// It prints its callback URI, reads the server's address from standard input, answers a call, places
// another one, and prints each event as a line of JSON. It exits with 0 if everything was as expected.

import assert from "node:assert/strict";
import { createPublicKey, verify } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

import { ClientSecretCredential } from "@azure/identity";
import { Client, GraphError } from "@microsoft/microsoft-graph-client";
import { TokenCredentialAuthenticationProvider } from "@microsoft/microsoft-graph-client/authProviders/azureTokenCredentials/index.js";

const say = (what) => console.log(JSON.stringify(what));

// -- notifications --------------------------------------------------------------------------------

const seen = [];
const waiting = [];
const untold = [];
let check = null;

function take(headers, body) {
  check(headers.authorization);
  const notification = body.value[0];
  const data = {
    ...notification.resourceData,
    changeType: notification.changeType,
    chain: headers["x-microsoft-skype-chain-id"],
  };
  seen.push(data);
  for (const waiter of [...waiting]) {
    if (waiter.wanted(data)) {
      waiting.splice(waiting.indexOf(waiter), 1);
      waiter.resolve(data);
    }
  }
}

function told(what, wanted) {
  const known = seen.find(wanted);
  if (known) return Promise.resolve(known);
  return new Promise((resolve, reject) => {
    waiting.push({ wanted, resolve });
    setTimeout(() => reject(new Error(`not told in time: ${what}`)), 30_000).unref();
  });
}

const state = (call, state) => told(state, (data) => data.id === call && data.state === state);

async function ended(operation) {
  const data = await told("end", (data) => data.id === operation.id);
  assert.equal(data.changeType, "deleted");
  return data;
}

// -- the bot's own server ---------------------------------------------------------------------------

const server = createServer((request, response) => {
  if (request.method === "GET") {
    response.writeHead(200, { "Content-Type": "audio/wav" }).end(readFileSync("prompt.wav"));
    return;
  }
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const notification = [request.headers, JSON.parse(Buffer.concat(chunks).toString())];
    if (check) take(...notification);
    else untold.push(notification);
    response.writeHead(202).end();
  });
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const base = `http://127.0.0.1:${server.address().port}`;
const callback = `${base}/api/calls`;
say({ callback });

const lines = createInterface({ input: process.stdin });
const node = JSON.parse((await lines[Symbol.asyncIterator]().next()).value);
lines.close();

// -- authentication of notifications ------------------------------------------------------------------

const fetched = async (url) => (await fetch(url)).json();
const metadata = await fetched(`${node.api}/v1/.well-known/OpenIdConfiguration`);
const { keys } = await fetched(metadata.jwks_uri);
const decoded = (part) => JSON.parse(Buffer.from(part, "base64url").toString());
check = (authorization) => {
  const [header, claims, signature] = authorization.replace(/^Bearer /, "").split(".");
  const jwk = keys.find((key) => key.kid === decoded(header).kid);
  const key = createPublicKey({ key: jwk, format: "jwk" });
  const signed = Buffer.from(`${header}.${claims}`);
  assert(verify("RSA-SHA256", signed, key, Buffer.from(signature, "base64url")));
  const { aud, iss, tid, exp } = decoded(claims);
  assert.deepEqual([aud, iss, tid], [node.app, metadata.issuer, node.tenant]);
  assert(exp > Date.now() / 1000);
};
for (const notification of untold) take(...notification);

// -- the client: the two addresses that change --------------------------------------------------------

const credential = new ClientSecretCredential(node.tenant, node.app, node.secret, {
  authorityHost: node.api,
  disableInstanceDiscovery: true,
});
const graph = Client.initWithMiddleware({
  authProvider: new TokenCredentialAuthenticationProvider(credential, {
    scopes: ["https://graph.microsoft.com/.default"],
  }),
  baseUrl: node.api,
  defaultVersion: "v1.0",
  customHosts: new Set(["127.0.0.1"]),
});
const calls = "/communications/calls";
const prompt = {
  "@odata.type": "#microsoft.graph.mediaPrompt",
  mediaInfo: {
    "@odata.type": "#microsoft.graph.mediaInfo",
    uri: `${base}/prompt.wav`,
    resourceId: "p",
  },
};
const mediaConfig = {
  "@odata.type": "#microsoft.graph.serviceHostedMediaConfig",
  preFetchMedia: [prompt.mediaInfo],
};
const phone = (number) => ({
  "@odata.type": "#microsoft.graph.invitationParticipantInfo",
  identity: {
    "@odata.type": "#microsoft.graph.identitySet",
    phone: { "@odata.type": "#microsoft.graph.identity", id: number },
  },
});

// -- an incoming call ---------------------------------------------------------------------------------

const incoming = await told("call", (data) => data.state === "incoming");
const call = `${calls}/${incoming.id}`;
await graph
  .api(`${call}/answer`)
  .post({ callbackUri: callback, acceptedModalities: ["audio"], mediaConfig });
const established = await state(incoming.id, "established");
const shown = await graph.api(call).expand("participants").get();
assert.equal(shown.state, "established");
assert.equal(shown.participants.length, 2);
assert.equal(established.chain, shown.callChainId);
say({ step: "established" });

await graph.api(`${call}/subscribeToTone`).post({ clientContext: "tones" });
say({ press: "5" });
const tone = await told("tone", (data) => data.toneInfo);
assert.equal(tone.toneInfo.tone, "tone5");

const played = await graph
  .api(`${call}/playPrompt`)
  .post({ prompts: [prompt], clientContext: "hello" });
const playEnd = await ended(played);
assert.deepEqual([playEnd.resultInfo.code, playEnd.clientContext], [200, "hello"]);
say({ step: "played" });

const long = await graph
  .api(`${call}/playPrompt`)
  .post({ prompts: [prompt, prompt, prompt] });
const canceled = await graph.api(`${call}/cancelMediaProcessing`).post({});
assert.equal(canceled.status, "completed");
assert.equal((await ended(long)).completionReason, "mediaOperationCanceled");
const listed = await graph.api(calls).select("id,state").count(true).get();
assert.deepEqual([listed["@odata.count"], listed.value[0].id], [1, incoming.id]);
const operations = await graph.api(`${call}/operations`).top(2).get();
assert.equal(operations.value.length, 2);
assert(operations["@odata.nextLink"]);
await assert.rejects(graph.api(`${call}/participants/invite`).post({}), (error) => {
  assert.deepEqual([error.statusCode, error.code], [501, "8520"]);
  return true;
});
const status = await graph
  .api(`${call}/updateRecordingStatus`)
  .post({ status: "recording", clientContext: "r" });
assert.equal(status["@odata.type"], "#microsoft.graph.updateRecordingStatusOperation");

await graph.api(`${call}/mute`).post({ clientContext: "m" });
const own = await graph.api(`${call}/participants/${shown.myParticipantId}`).get();
assert.equal(own.isMuted, true);
const unmuted = await graph.api(`${call}/unmute`).post({});
assert.equal(unmuted.status, "completed");
await graph.api(`${call}/keepAlive`).post();

const sent = await graph
  .api(`${call}/sendDtmfTones`)
  .post({ tones: ["tone1", "pound"], delayBetweenTonesMs: 100 });
assert.equal((await ended(sent)).completionReason, "completedSuccessfully");

// The old name of the action, in beta and with its namespace.
const record = await graph
  .api(`${call}/microsoft.graph.record`)
  .version("beta")
  .post({ maxRecordDurationInSeconds: 6, maxSilenceTimeoutInSeconds: 5, playBeep: true });
assert.equal(record.status, "running");
const recordEnd = await ended(record);
assert.equal(recordEnd.completionReason, "maxRecordDurationReached");
const clip = await fetch(recordEnd.recordingLocation, {
  headers: { Authorization: `Bearer ${recordEnd.recordingAccessToken}` },
});
assert.equal(clip.status, 200);
writeFileSync("clip.wav", Buffer.from(await clip.arrayBuffer()));
const deleted = await fetch(recordEnd.recordingLocation, {
  method: "DELETE",
  headers: { Authorization: `Bearer ${recordEnd.recordingAccessToken}` },
});
assert.equal(deleted.status, 204);
say({ step: "recorded" });

await graph.api(call).delete();
assert.equal((await state(incoming.id, "terminated")).changeType, "deleted");
await assert.rejects(graph.api(call).get(), (error) => {
  assert(error instanceof GraphError);
  assert.deepEqual([error.statusCode, error.code], [404, "8522"]);
  assert(error.requestId);
  return true;
});

// -- an outgoing call ---------------------------------------------------------------------------------

const placed = await graph.api(calls).post({
  "@odata.type": "#microsoft.graph.call",
  callbackUri: callback,
  direction: "outgoing",
  requestedModalities: ["audio"],
  targets: [phone("200")],
  mediaConfig,
});
await state(placed.id, "established");
await graph.api(`${calls}/${placed.id}/transfer`).post({ transferTarget: phone("201") });
await state(placed.id, "transferAccepted");
const over = await state(placed.id, "terminated");
assert.equal(over.resultInfo.subcode, 7015);
say({ step: "transferred" });
server.close();
server.closeAllConnections();
