import json, urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

API, TOKEN = "http://127.0.0.1:8080/v1.0", "change-me-to-something-long-and-random"
AUDIO = {"@odata.type": "#microsoft.graph.serviceHostedMediaConfig"}

def post(path, body):
    request = urllib.request.Request(API + "/communications/calls/" + path, json.dumps(body).encode(),
        {"Authorization": "Bearer " + TOKEN, "Content-Type": "application/json"})
    urllib.request.urlopen(request)

class Bot(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(202), self.end_headers()
        data = body["value"][0]["resourceData"]
        print(body["value"][0]["changeType"], data.get("state") or data.get("status"), data["id"])
        if data.get("state") == "incoming":
            post(data["id"] + "/answer", {"acceptedModalities": ["audio"], "mediaConfig": AUDIO})
        elif data.get("state") == "established" and "toneInfo" not in data:
            post(data["id"] + "/recordResponse", {"playBeep": True, "stopTones": ["#"],
                 "maxRecordDurationInSeconds": 60, "maxSilenceTimeoutInSeconds": 3})
        elif data.get("recordingLocation"):
            request = urllib.request.Request(data["recordingLocation"],
                headers={"Authorization": "Bearer " + data["recordingAccessToken"]})
            open("message.wav", "wb").write(urllib.request.urlopen(request).read())
            print("message.wav written")

HTTPServer(("127.0.0.1", 3978), Bot).serve_forever()
