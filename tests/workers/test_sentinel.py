"""The broker behind Redis Sentinel: Celery's client and the doctor's follow a real failover."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import Settings
from node.monitoring.broker_health import broker_facts, check_broker
from tests.certificates import Certificates, certificates
from tests.orthanc import wait_until
from tests.sentinel import Sentinels, sentinels
from workers.enqueue import TaskQueue

__all__ = ["certificates"]


def _settings(servers: Sentinels, query: str = "", **secrets: str) -> Settings:
    return Settings(broker={"url": servers.url(query), **secrets})


@pytest.mark.peer("redis-server")
@pytest.mark.peer("openssl")
def test_messages_go_to_the_new_primary(tmp_path: Path, certificates: Certificates) -> None:
    """With all that a URL may have: passwords of Redis and Sentinel, and TLS to both."""
    shown, ca = certificates.pacs, certificates.ca
    tls = (
        *(f"tls-cert-file {shown.certificate}", f"tls-key-file {shown.key}", f"tls-ca-cert-file {ca}"),
        *("tls-auth-clients no", "tls-replication yes"),
    )
    login = {"ssl": True, "ssl_ca_certs": str(ca)}
    with sentinels(tmp_path, tls=tls, secret="s3cret", login=login) as servers:
        secrets = {"password": "s3cret", "sentinel_password": "s3cret"}
        settings = _settings(servers, f"&ssl_ca_certs={ca}", **secrets)
        task_queue = TaskQueue(settings.broker_url)
        try:
            assert task_queue.enqueue_jobs([(1, False)])
            assert task_queue.waiting_jobs() == frozenset({1})
            assert check_broker(settings).ok
            assert broker_facts(settings) is not None
            servers.kill_primary()
            wait_until(lambda: task_queue.enqueue_jobs([(2, True)]), "the new primary", pause=0.2)
            waiting = task_queue.waiting_jobs()
        finally:
            task_queue.close()
        assert waiting is not None
        assert 2 in waiting
        assert check_broker(settings).ok
        wrong = check_broker(_settings(servers, f"&ssl_ca_certs={ca}", **secrets | {"password": "other"}))
        assert "does not accept the password" in wrong.found
        nobody = Settings(broker={"url": servers.url().replace("=pleura", "=lung"), **secrets})
        assert not check_broker(nobody).ok
