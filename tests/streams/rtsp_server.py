"""An RTSP server for tests, run by the system's Python, which has GStreamer's bindings.

    rtsp_server.py PORT [--size WxH] [--fps N] [--user NAME:PASSWORD] [--stall-after N] [--udp-only]
                   [--record FILE] [--tls FILE]

It serves `/cam`: H.264, each frame with the time when it was drawn as a row of black and white
blocks, least significant bit on the left: milliseconds of the monotonic clock, which all processes
of a machine share (`drawn_at` in live_servers.py reads it). What is sent to `/record` as H.264 is
written to a file in MPEG-TS, which each sender begins anew; `/record0` and `/record1` have files of
their own, with the number behind the name. It prints `ready` when it listens, and ends when its
standard input is closed, so that no test leaves it behind. `--stall-after` lets it send nothing for
four seconds after so many frames. With a key and certificate in `--tls` it speaks RTSPS.
"""

import argparse
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402 - versions come first

BITS = 32
STALL_SECONDS = 4.0


def picture(number: int, width: int, height: int) -> bytes:
    """A picture in I420: grey, a number of at most 32 bits in its upper half."""
    block = width // BITS
    bits = [255 if number >> bit & 1 else 0 for bit in range(BITS)]
    row = b"".join(bytes([bit]) * block for bit in bits).ljust(width, b"\x80")
    luma = row * (height // 2) + b"\x80" * (width * (height - height // 2))
    return luma + b"\x80" * (2 * (width // 2) * (height // 2))


class Camera(GstRtspServer.RTSPMediaFactory):
    """One H.264 stream."""

    def __init__(self, width: int, height: int, fps: int, stall_after: int) -> None:
        super().__init__()
        self.width, self.height, self.fps = width, height, fps
        self.stall_after = stall_after
        self.set_shared(True)
        self.set_launch(
            "( appsrc name=source is-live=true do-timestamp=true format=time "
            f"caps=video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 "
            "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 bitrate=2000 "
            "! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1 )"
        )

    def start(self, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_by_name("source")
        sent, gone, goes_on = 0, False, 0.0

        def leave(_: GstRtspServer.RTSPMedia) -> None:
            nonlocal gone
            gone = True

        def push() -> bool:
            nonlocal sent, goes_on
            if sent == self.stall_after and not goes_on:
                goes_on = time.monotonic() + STALL_SECONDS
            if not gone and time.monotonic() >= goes_on:
                now = time.monotonic_ns() // 1_000_000
                data = picture(now % 2**BITS, self.width, self.height)
                # what is refused while a client comes is a frame that nobody sees
                source.emit("push-buffer", Gst.Buffer.new_wrapped(data))
                sent += 1
            return not gone

        media.connect("unprepared", leave)
        push()
        GLib.timeout_add(1000 // self.fps, push)


def recorder(file: str) -> GstRtspServer.RTSPMediaFactory:
    """What takes a stream of H.264 and writes it."""
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.set_launch(
        "( rtph264depay name=depay0 ! h264parse config-interval=-1 ! mpegtsmux "
        f"! filesink location={file} sync=false async=false buffer-mode=unbuffered )"
    )
    return factory


def guard(
    server: GstRtspServer.RTSPServer, factories: list, user: str | None, certificate: str | None
) -> None:
    """Lets only a user with a password in, and speaks TLS alone."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    if user:
        name, _, password = user.partition(":")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(name, password), token)
    else:
        auth.set_default_token(token)
    if certificate:
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(certificate))
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    for factory in factories:
        factory.set_permissions(permissions)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--user")
    parser.add_argument("--stall-after", type=int, default=-1)
    parser.add_argument("--udp-only", action="store_true")
    parser.add_argument("--record")
    parser.add_argument("--tls")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(args.port)
    camera = Camera(width, height, args.fps, args.stall_after)
    camera.connect("media-configure", lambda factory, media: factory.start(media))
    if args.udp_only:
        camera.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
    factories = {"/cam": camera}
    for place in ("", "0", "1") if args.record else ():
        factories["/record" + place] = recorder(args.record + place)
    if args.user or args.tls:
        guard(server, [*factories.values()], args.user, args.tls)
    for path, factory in factories.items():
        server.get_mount_points().add_factory(path, factory)
    if not server.attach(None):
        sys.exit("cannot listen")
    loop = GLib.MainLoop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    loop.run()


if __name__ == "__main__":
    main()
