"""Shared by the bots of this folder: their web server, their notifications, and how they sign in.

A bot prints its callback URI, reads the server's address from standard input, and prints each event as a
line of JSON. It exits with 0 if everything was as expected.
"""

import asyncio
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import jwt
from azure.identity.aio import ClientSecretCredential
from kiota_authentication_azure.azure_identity_authentication_provider import (
    AzureIdentityAuthenticationProvider,
)

told: asyncio.Queue = asyncio.Queue()
loop = asyncio.new_event_loop()


def say(**what):
    print(json.dumps(what), flush=True)


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        loop.call_soon_threadsafe(told.put_nowait, (dict(self.headers.items()), body))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        with open("prompt.wav", "rb") as prompt:
            data = prompt.read()
        self.send_response(200)
        self.send_header("Content-Type", "audio/wav")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


class Notifications:
    """The notifications, each checked as a bot of Graph checks it: signature, audience, tenant."""

    def __init__(self, node, context):
        self.node = node
        metadata = httpx.get(node["api"] + "/v1/.well-known/OpenIdConfiguration", verify=context).json()
        self.issuer = metadata["issuer"]
        self.keys = jwt.PyJWKClient(metadata["jwks_uri"], ssl_context=context)
        self.seen = []

    async def wait(self, what, wanted):
        for data in self.seen:
            if wanted(data):
                return data
        while True:
            headers, body = await asyncio.wait_for(told.get(), 30)
            token = headers["authorization"].removeprefix("Bearer ")
            key = self.keys.get_signing_key_from_jwt(token)
            claims = jwt.decode(
                token, key, algorithms=["RS256"], audience=self.node["app"], issuer=self.issuer
            )
            assert claims["tid"] == self.node["tenant"], claims
            notification = body["value"][0]
            data = notification["resourceData"] | {"changeType": notification["changeType"]}
            data["chain"] = headers["x-microsoft-skype-chain-id"]
            self.seen.append(data)
            if wanted(data):
                return data

    async def state(self, call, state):
        return await self.wait(state, lambda d: d.get("id") == call and d.get("state") == state)

    async def ended(self, operation):
        data = await self.wait("end", lambda d: d.get("id") == operation.id)
        assert data["changeType"] == "deleted", data
        return data


class Place:
    """The server's address, and our identity there."""

    def __init__(self, node, callback):
        self.node = node
        self.callback = callback
        self.prompt = callback.replace("/api/calls", "/prompt.wav")
        self.context = ssl.create_default_context(cafile=node["authority"])
        # The two addresses and the metadata URL that change, and the test's own certificate.
        self.credential = ClientSecretCredential(
            node["tenant"],
            node["app"],
            node["secret"],
            authority=node["api"],
            disable_instance_discovery=True,
            connection_verify=node["authority"],
        )
        self.authentication = AzureIdentityAuthenticationProvider(
            self.credential,
            scopes=["https://graph.microsoft.com/.default"],
            allowed_hosts=["127.0.0.1"],
        )
        self.web = httpx.AsyncClient(verify=self.context)
        self.notifications = Notifications(node, self.context)

    def adapter(self, kind, version):
        adapter = kind(self.authentication, self.web)
        adapter.base_url = self.node["api"] + version
        return adapter

    async def clip(self, operation, name):
        """Downloads and stores the recording of an operation."""
        token = {"Authorization": f"Bearer {operation.recording_access_token}"}
        clip = await self.web.get(operation.recording_location, headers=token)
        clip.raise_for_status()
        with open(name, "wb") as file:
            file.write(clip.content)


def run(main):
    async def story(server):
        callback = f"http://127.0.0.1:{server.server_port}/api/calls"
        say(callback=callback)
        node = json.loads(await asyncio.to_thread(sys.stdin.readline))
        place = Place(node, callback)
        await main(place)
        await place.credential.close()

    asyncio.set_event_loop(loop)
    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        loop.run_until_complete(story(server))
        server.shutdown()
