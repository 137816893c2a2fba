"""The hub: durable before acknowledged, once, and nothing but what it is for."""

import hashlib
import http.client
import json
import socket
import threading

import pytest

from flyball.base import InputError, digest_of
from flyball.fleet.client import HubClient, Unreachable
from flyball.fleet.hub import MAX_LOG, MAX_STATUS, Hub
from flyball.fleet.orders import Order, read_incidents, read_order, read_status, write_order


def ask(site, method, path, body=b"", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", site.server.server_address[1], timeout=5)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for key, value in (headers if headers is not None else {"Content-Length": str(len(body))}).items():
            connection.putheader(key, value)
        connection.endheaders()
        connection.send(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def sha(data):
    return hashlib.sha256(data).hexdigest()


def inbox(site):
    return sorted(p.name for p in (site.workspace / "inbox").iterdir())


def test_a_log_is_taken_once_and_known_even_after_ingest_took_it(site):
    log = b"log" * 1000
    path = f"/logs/robot-01/{sha(log)}"
    assert ask(site, "PUT", path, log)[0] == 201
    assert inbox(site) == [f"robot-01.{sha(log)}.mcap"]
    assert (site.workspace / "inbox" / inbox(site)[0]).read_bytes() == log
    assert ask(site, "PUT", path, log)[0] == 200
    (site.workspace / "inbox" / inbox(site)[0]).unlink()  # ingested
    assert ask(site, "PUT", path, log)[0] == 200 and inbox(site) == []
    site.hub = Hub(site.workspace)  # and after a restart
    assert site.hub.knows(sha(log)) and not site.hub.knows(sha(b"other"))


def test_many_senders_of_one_log_leave_one(site, tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100_000)
    digest = sha(log.read_bytes())
    senders = [threading.Thread(target=HubClient(site.url).send_log, args=("robot-01", digest, log)) for _ in range(8)]
    for t in senders:
        t.start()
    for t in senders:
        t.join()
    assert inbox(site) == [f"robot-01.{digest}.mcap"]
    assert len((site.workspace / "fleet" / "acknowledged.jsonl").read_text().splitlines()) == 1
    assert list(site.hub.incoming.iterdir()) == []


def test_bytes_that_are_not_what_they_claim_are_not_kept(site):
    status, body = ask(site, "PUT", f"/logs/robot-01/{sha(b'a')}", b"b")
    assert status == 400 and b"sha256" in body
    with socket.create_connection(site.server.server_address) as s:  # half a log, then the line goes dead
        s.sendall(f"PUT /logs/robot-01/{sha(b'abc')} HTTP/1.1\r\nContent-Length: 3\r\n\r\nab".encode())
        s.shutdown(socket.SHUT_WR)
        assert b"400" in s.recv(1000)
    assert inbox(site) == [] and list(site.hub.incoming.iterdir()) == []
    assert not site.hub.knows(sha(b"abc"))


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("PUT", f"/logs/robot-01/{'0' * 64}", {}, 411),
        ("PUT", f"/logs/robot-01/{'0' * 64}", {"Content-Length": "-5"}, 411),
        ("PUT", f"/logs/robot-01/{'0' * 64}", {"Content-Length": str(MAX_LOG + 1)}, 413),
        ("PUT", "/logs/robot-01/abc", None, 404),
        ("PUT", f"/logs/..%2f/{'0' * 64}", None, 404),
        ("PUT", f"/logs/../{'0' * 64}", None, 404),
        ("POST", "/status/robot-01", {"Content-Length": str(MAX_STATUS + 1)}, 413),
        ("POST", "/status/.hidden", None, 404),
        ("GET", "/tuf/keys/root-1.pem", None, 404),
        ("GET", "/tuf/../keys/root-1.pem", None, 404),
        ("GET", "/tuf/metadata/../../keys/root-1.pem", None, 404),
        ("GET", "/tuf/metadata/..", None, 404),
        ("GET", "/tuf/metadata", None, 404),
        ("GET", "/", None, 404),
        ("GET", "/orders/robot-01/more", None, 404),
        ("DELETE", "/orders/robot-01", None, 501),
    ],
)
def test_what_is_not_meant_is_refused(site, method, path, headers, status):
    assert ask(site, method, path, headers=headers)[0] == status
    assert inbox(site) == []


def test_metadata_is_served(site):
    assert ask(site, "GET", "/tuf/metadata/1.root.json") == (200, site.repository.root())


def test_orders_go_out_and_statuses_and_incidents_come_in(site):
    client = HubClient(site.url)
    assert client.order("robot-01") is None
    order = Order("turn-1.a", "turn-000", "lift-v1", "lift it", 5, 100, 7, 1, 50, {"why": "fleet"})
    write_order(site.workspace, "robot-01", order)
    assert Order.from_json(client.order("robot-01")) == order == read_order(site.workspace, "robot-01")
    incident = {"kind": "refused", "reason": "for another body"}
    incident = {**incident, "id": digest_of(incident)}
    for _ in range(2):
        assert client.send_status("robot-01", {"done": 3, "incidents": [incident]}) == [incident["id"]]
    assert read_status(site.workspace)["robot-01"]["done"] == 3
    (kept,) = read_incidents(site.workspace)
    assert kept["robot"] == "robot-01" and kept["reason"] == "for another body"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"\xff", b'{"incidents": [{"id": "x"}]}', b'{"incidents": ["x"]}', b'{"incidents": 3}']
)
def test_a_garbled_status_is_refused_and_changes_nothing(site, body):
    assert ask(site, "POST", "/status/robot-01", body)[0] == 400
    assert read_status(site.workspace) == {} and read_incidents(site.workspace) == []


def test_a_hub_that_is_gone_or_no_hub_is_unreachable(site):
    site.close()
    with pytest.raises(Unreachable, match="no answer from the hub"):
        HubClient(site.url).order("robot-01")
    with pytest.raises(InputError, match="127"):
        HubClient("https://example.org")
    site.open()
    with pytest.raises(Unreachable, match="404"):
        HubClient(site.url)._json(*HubClient(site.url)._ask("GET", "/nothing"))


def test_it_listens_on_this_machine_only(site):
    assert site.server.server_address[0] == "127.0.0.1"


def test_an_order_that_makes_no_sense_is_refused():
    for bad in ({"id": "a/b", "release": "x"}, {"id": "a", "release": "x", "attempts": 3}, {"id": "a"}):
        with pytest.raises(InputError):
            Order.from_json(json.loads(json.dumps(bad)))
