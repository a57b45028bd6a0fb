// JsSIP as a phone: registers, sends OPTIONS, calls the node, and is called back. Prints each event on
// standard output, one word a line.
//
//   node phone.js WEBSOCKET-URL SIP-URI PASSWORD TARGET SPEECH

"use strict";

const dgram = require("dgram");
const fs = require("fs");
const JsSIP = require("jssip");
const NodeWebSocket = require("jssip-node-websocket");

const [url, uri, password, target, speech] = process.argv.slice(2);
const samples = fs.readFileSync(speech);
const FRAME = 160;

const say = (word) => process.stdout.write(`${word}\n`);
const fail = (what) => (event) => {
  say(`failed: ${what}: ${event && event.cause}`);
  process.exit(1);
};

/// In place of a browser's media: plain RTP with PCMU, which repeats the speech.
class PeerConnection {
  constructor() {
    this.iceGatheringState = "complete";
    this.iceConnectionState = "connected";
    this.signalingState = "stable";
    this.socket = dgram.createSocket("udp4");
    this.bound = new Promise((done) => this.socket.bind(0, "127.0.0.1", done));
    this.heard = 0;
    this.socket.on("message", () => (this.heard += 1));
  }

  addEventListener() {}
  removeEventListener() {}
  getSenders() {
    return [];
  }

  async describe(type) {
    await this.bound;
    const port = this.socket.address().port;
    const sdp = [
      "v=0",
      "o=- 1 1 IN IP4 127.0.0.1",
      "s=-",
      "c=IN IP4 127.0.0.1",
      "t=0 0",
      `m=audio ${port} RTP/AVP 0`,
      "a=rtpmap:0 PCMU/8000",
      "a=sendrecv",
      "",
    ].join("\r\n");
    return { type, sdp };
  }

  createOffer() {
    return this.describe("offer");
  }

  createAnswer() {
    return this.describe("answer");
  }

  async setLocalDescription(description) {
    this.localDescription = description;
  }

  async setRemoteDescription({ sdp }) {
    const port = Number(/^m=audio (\d+)/m.exec(sdp)[1]);
    let sequence = 0;
    const begun = Date.now();
    this.clock = setInterval(() => {
      while (sequence * 20 <= Date.now() - begun) {
        const packet = Buffer.alloc(12 + FRAME);
        packet.writeUInt16BE(0x8000, 0);
        packet.writeUInt16BE(sequence & 0xffff, 2);
        packet.writeUInt32BE(sequence * FRAME, 4);
        packet.writeUInt32BE(0x5eed, 8);
        const at = (sequence * FRAME) % (samples.length - (samples.length % FRAME));
        samples.copy(packet, 12, at, at + FRAME);
        this.socket.send(packet, port, "127.0.0.1");
        sequence += 1;
      }
    }, 10);
  }

  close() {
    clearInterval(this.clock);
    this.socket.close();
    say(this.heard > 50 ? "heard" : "silence");
  }
}

global.window = global;
global.RTCPeerConnection = PeerConnection;
global.RTCSessionDescription = function RTCSessionDescription(description) {
  return description;
};

const ua = new JsSIP.UA({
  sockets: [new NodeWebSocket(url)],
  uri,
  password,
  register_expires: 60,
  session_timers: false,
});

let calls = 0;
ua.on("registrationFailed", fail("registration"));
ua.on("registered", () => {
  say("registered");
  // JsSIP reports a refresh only when it fails.
  ua.register();
  setTimeout(refreshed, 500);
});

function refreshed() {
  if (!ua.isRegistered()) fail("refresh")();
  ua.sendOptions(target, null, {
    eventHandlers: {
      failed: fail("OPTIONS"),
      succeeded: () => {
        say("options");
        ua.call(target, { mediaConstraints: { audio: false, video: false } });
      },
    },
  });
}

ua.on("newRTCSession", ({ originator, session }) => {
  session.on("failed", fail(`${originator} call`));
  session.on("confirmed", () => say(`${originator}-confirmed`));
  session.on("ended", () => {
    say(`${originator}-ended`);
    calls += 1;
    if (calls === 2) ua.unregister();
  });
  if (originator === "remote") session.answer({ mediaConstraints: { audio: false, video: false } });
});
ua.on("unregistered", () => {
  say("unregistered");
  ua.stop();
  setTimeout(() => process.exit(0), 200);
});
ua.start();
