#!/usr/bin/env python3
"""The bot of load.sh: answers every call, records it, and checks that each clip is complete.

usage: bot.py PORT API TOKEN REFERENCE.ulaw CALLS SECONDS LOG
Complete means: from sipp's first sample on, the clip is the sent audio, sample for sample. From the
server's log and its own clock the bot prints how long bots wait.
"""
import datetime, json, os, re, struct, sys, tempfile, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, api, token, reference, calls, seconds, log = sys.argv[1:]
calls, seconds = int(calls), int(seconds)


def ulaw(code):
    code = ~code & 0xFF
    value = (((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)
    return 0x84 - value if code & 0x80 else value - 0x84


TABLE = [struct.pack("<h", ulaw(code)) for code in range(256)]
SPOKEN = b"".join(TABLE[code] for code in open(reference, "rb").read())
# Notifications may come twice: calls and operations are counted by their ids.
lock, clips, ended, refused = threading.Condition(), {}, set(), []
# When the notification of a call or an operation came, and when the clip was complete.
told, fetched = {}, {}
folder = tempfile.TemporaryDirectory()


def request(path, body=None, bearer=token):
    url = path if path.startswith("http") else api + path
    headers = {"Authorization": "Bearer " + bearer, "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
        return answer.read()


def judge(clip):
    """The fault of a clip, or None. Every second sample at 16 kHz is a sample at 8 kHz."""
    samples = b"".join(clip[at:at + 2] for at in range(44, len(clip) - 3, 4))
    begin = samples.find(SPOKEN[320:640])
    if begin < 0:
        return "the speech is not in it"
    begin = max(begin - 320, 0)
    heard = samples[begin:begin + len(SPOKEN)]
    if len(heard) < 16000 * (seconds - 3):
        return f"only {len(heard) / 16000:.1f} s"
    wrong = sum(heard[at:at + 320] != SPOKEN[at:at + 320] for at in range(0, len(heard), 320))
    return f"{wrong} frames differ" if wrong else None


class Bot(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        now = time.time()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        data = body["value"][0]["resourceData"]
        told.setdefault((data["id"], data.get("state") or data.get("status")), now)
        threading.Thread(target=react, args=(data,)).start()


def react(data):
    path = "/v1.0/communications/calls/" + data["id"]
    try:
        if data.get("state") == "incoming":
            media = {"@odata.type": "#microsoft.graph.serviceHostedMediaConfig"}
            request(path + "/answer", {"acceptedModalities": ["audio"], "mediaConfig": media})
        elif data.get("state") == "established":
            request(path + "/recordResponse", {
                "playBeep": False, "maxRecordDurationInSeconds": seconds,
                "initialSilenceTimeoutInSeconds": 30, "maxSilenceTimeoutInSeconds": 30})
        elif data.get("recordingLocation"):
            clip = request(data["recordingLocation"], bearer=data["recordingAccessToken"])
            fetched.setdefault(data["id"], time.time())
            file = os.path.join(folder.name, data["id"])
            open(file, "wb").write(clip)
            with lock:
                clips[data["id"]] = file
                lock.notify_all()
        elif data.get("state") == "terminated":
            with lock:
                ended.add(data["id"])
                lock.notify_all()
    except Exception as error:
        with lock:
            refused.append(error)
            print("bot:", error, file=sys.stderr)


server = ThreadingHTTPServer(("127.0.0.1", int(port)), Bot)
server.request_queue_size = 1024
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
with lock:
    lock.wait_for(lambda: min(len(ended), len(clips)) >= calls, timeout=seconds + 120)
judged = {id: judge(open(file, "rb").read()) for id, file in clips.items()}
broken = [wrong for wrong in judged.values() if wrong]
print(f"clips whole: {len(judged) - len(broken)} of {calls}; broken: {broken[:5]}; "
      f"refused requests: {len(refused)}; calls ended: {len(ended)}")


def later(event, name, of, heard):
    """The delay between an event of the log and its arrival here: median and 99th percentile."""
    waits = []
    for line in open(log):
        found = re.search(name, line) if event in line else None
        if found and heard(found[1]):
            at = datetime.datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()
            waits.append(1000 * (heard(found[1]) - at))
    return percentiles(of, waits)


def percentiles(of, waits):
    waits.sort()
    at = lambda part: waits[min(int(part * len(waits)), len(waits) - 1)] if waits else float("nan")
    return f"{of}: median {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, of {len(waits)}"


answers = [int(found[1]) for line in open(log) if "/recordResponse " in line
           and (found := re.search(r"ms=(\d+)", line))]
print(percentiles("POST recordResponse, at the server", answers))
print(later("Call established", r"call\.id=([0-9a-f-]+)", "established to webhook",
            lambda id: told.get((id, "established"))))
print(later("Operation off the media", r"operation\.id=([0-9a-f-]+)", "end of recording to webhook",
            lambda id: told.get((id, "completed"))))
print(later("Operation off the media", r"operation\.id=([0-9a-f-]+)", "end of recording to clip fetched",
            fetched.get))
