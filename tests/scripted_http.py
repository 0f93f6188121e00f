"""A server that says byte for byte what a test wants said, and a certificate for it."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from business_api.transport import Network

Say = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Scripted:
    """A server that answers the n-th request of all with the n-th script, the last one again and again."""

    def __init__(self, *scripts: Say | bytes) -> None:
        self.scripts = list(scripts)
        self.heads: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                if isinstance(script, bytes):
                    writer.write(script)
                else:
                    await script(writer)
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def asking(
    *scripts: Say | bytes, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Scripted, Network]]:
    """A scripted server, and our transport to it."""
    scripted = Scripted(*scripts)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, ssl=tls)
    scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
    network = Network.open(f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}/v1", 2.0)
    try:
        yield scripted, network
    finally:
        await network.aclose()
        server.close()


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that vouches for itself, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public, private = folder / "public.pem", folder / "private.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context
