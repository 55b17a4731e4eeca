# Copyright: virtuoso.grid contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads: verified, resumed, and nothing left under a name when wrong. The server is a thread of this process."""

from __future__ import annotations

import hashlib
import http.server
import threading

import pytest
from ansible_collections.virtuoso.grid.plugins.module_utils._errors import GridError
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.checksum import Checksum
from ansible_collections.virtuoso.grid.plugins.module_utils._image.build.download import fetch, resolved
from ansible_collections.virtuoso.grid.plugins.module_utils._progress import Progress

CONTENT = bytes(range(256)) * 4096
CHECKSUM = Checksum("sha256", hashlib.sha256(CONTENT).hexdigest())
LONGER = Checksum("sha512", hashlib.sha512(CONTENT).hexdigest())


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT: /whole, /ranges (can go on in the middle), /cut (ends early), /404, /file (leads elsewhere)."""

    asked: list = []

    def do_GET(self):
        begin = self.headers.get("Range")
        type(self).asked.append((self.path, begin))
        if self.path == "/404":
            return self.send_error(404)
        if self.path == "/500":
            return self.send_error(500)
        if self.path.startswith("/SHA"):
            text = f"{hashlib.sha512(CONTENT).hexdigest()} *whole\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            return self.wfile.write(text)
        if self.path == "/file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            return self.end_headers()
        start = int(begin[len("bytes=") : -1]) if begin and self.path == "/ranges" else 0
        if start > len(CONTENT) - 1:
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        body = CONTENT[start:]
        return self.wfile.write(body[: len(body) // 2] if self.path == "/cut" else body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(name="server", scope="module")
def _server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(name="target")
def _target(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.asked.clear()
    return tmp_path / "download.part"


def code_of(url, target, checksum=CHECKSUM):
    with pytest.raises(GridError) as caught:
        fetch(url, checksum, str(target), Progress(None))
    return caught.value.code


def test_fetch(server, target, tmp_path):
    fetch(server + "/whole", CHECKSUM, str(target), Progress(str(tmp_path / "p")))
    assert target.read_bytes() == CONTENT
    assert '"done": 1048576, "total": 1048576' in (tmp_path / "p").read_text()


def test_what_is_there_is_not_fetched_again(server, target):
    target.write_bytes(CONTENT)
    fetch(server + "/whole", CHECKSUM, str(target), Progress(None))
    assert Handler.asked == []


def test_going_on_in_the_middle(server, target):
    target.write_bytes(CONTENT[:1000])
    fetch(server + "/ranges", CHECKSUM, str(target), Progress(None))
    assert target.read_bytes() == CONTENT and Handler.asked == [("/ranges", "bytes=1000-")]


def test_a_server_that_can_only_begin_anew(server, target):
    target.write_bytes(CONTENT[:1000])
    fetch(server + "/whole", CHECKSUM, str(target), Progress(None))
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file(server, target):
    target.write_bytes(CONTENT + b"more")
    fetch(server + "/ranges", CHECKSUM, str(target), Progress(None))
    assert target.read_bytes() == CONTENT and len(Handler.asked) == 2


def test_wrong_checksum(server, target):
    assert code_of(server + "/whole", target, Checksum("sha256", "0" * 64)) == "checksum_mismatch"
    assert not target.exists()


def test_a_part_of_something_else(server, target):
    target.write_bytes(b"?" * 1000)
    assert code_of(server + "/ranges", target) == "checksum_mismatch"
    assert not target.exists()
    fetch(server + "/ranges", CHECKSUM, str(target), Progress(None))


def test_a_connection_that_ends_early_is_resumed_later(server, target):
    assert code_of(server + "/cut", target) == "source_unreachable"
    assert target.read_bytes() == CONTENT[: len(CONTENT) // 2]
    fetch(server + "/ranges", CHECKSUM, str(target), Progress(None))
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "code"), [("/404", "source_missing"), ("/500", "source_unreachable"), ("/file", "source_unreachable")]
)
def test_answers_that_are_no_image(server, target, path, code):
    assert code_of(server + path, target) == code
    assert not target.exists()


def test_nobody_there(target):
    assert code_of("http://127.0.0.1:9/x", target) == "source_unreachable"


def test_another_algorithm_and_a_publishers_list(server, target):
    stated = resolved(server + "/whole", Checksum("sha512", address=server + "/SHA512SUMS"))
    assert stated == LONGER
    fetch(server + "/whole", stated, str(target), Progress(None))
    assert target.read_bytes() == CONTENT
    with pytest.raises(GridError) as caught:
        resolved(server + "/other", Checksum("sha512", address=server + "/SHA512SUMS"))
    assert caught.value.code == "checksum_missing" and "whole" in caught.value.msg
    with pytest.raises(GridError) as caught:
        resolved(server + "/whole", Checksum("sha512", address=server + "/404"))
    assert caught.value.code == "source_missing"


@pytest.mark.parametrize("path", ["/404", "/500", "/cut", "/whole"])
def test_a_password_in_an_address_is_in_no_error(server, target, path):
    url = server.replace("://", "://alice:s3cret@") + path + "?token=t0ken&x=1"
    with pytest.raises(GridError) as caught:
        fetch(url, Checksum("sha256", "0" * 64), str(target), Progress(None))
    told = str(caught.value.result())
    assert "s3cret" not in told and "t0ken" not in told
    assert caught.value.msg.count("alice:***@127.0.0.1") == 1 and "token=***&x=1" in caught.value.msg
